import ColdframeKit

/// Reads a log from its beginning to the last record that counts.
///
/// The end is where no whole record follows. That is right after a crash, which may tear what was being written; it is
/// damage if a record is missing that was on stable storage once: the superblock and every record say how many were.
struct LogScan {
    /// Where the log ends, and so where it goes on.
    struct End: Sendable {
        var segment: ClusterRun
        /// Byte within the segment.
        var position: Int
        var sequence: UInt64
        var predecessor: UInt32
        /// Records that were on stable storage for certain.
        var durableCount: UInt64
    }

    /// What is wrong with a log.
    struct Damage: Error {
        var sequence: UInt64
        var offset: UInt64
        var why: String
    }

    private(set) var segments: [ClusterRun] = []
    /// Of all records.
    private(set) var byteCount: UInt64 = 0
    private(set) var end: End
    /// nil if the log is whole.
    private(set) var damage: Damage?

    private let file: SidecarFile
    private let log: UInt32
    private var wasStopped = false
    private var bytes: [UInt8] = []

    /// Reads the log that `superblock` names. What is damaged is left out and told by `damage`; I/O errors throw.
    /// - Parameter visit: gets every record but `next`; false ends the log before that record.
    init(
        _ superblock: Superblock, _ file: SidecarFile,
        visit: (_ sequence: UInt64, _ record: Record) throws(ColdframeError) -> Bool = { _, _ in true }
    ) throws(ColdframeError) {
        self.file = file
        log = superblock.logSeed
        let first = ClusterRun(first: superblock.logCluster, count: superblock.logClusterCount)
        end = End(
            segment: first, position: 0, sequence: 0, predecessor: superblock.logSeed,
            durableCount: superblock.recordCount)
        guard try enter(first) else { return }
        while try step(visit) {}
        if !wasStopped { checkEnd(superblock) }
    }

    /// Loads a segment; false, with the damage noted, if it cannot be one.
    private mutating func enter(_ segment: ClusterRun) throws(ColdframeError) -> Bool {
        let byteCount = UInt64(segment.count) << file.clusterBits
        guard segment.first > 0, segment.count > 0, byteCount <= LogWriter.segmentByteLimit,
            segment.end <= file.clusterCount,
            !segments.contains(where: { UInt64($0.first) < segment.end && UInt64(segment.first) < $0.end })
        else {
            damage = Damage(
                sequence: end.sequence, offset: UInt64(segment.first) << file.clusterBits,
                why: "a part of the log lies outside the file of \(file.byteCount) bytes, or in another part of it")
            return false
        }
        bytes = try file.read(byteCount: Int(byteCount), at: file.offset(ofCluster: segment.first), "a part of the log")
        segments.append(segment)
        end.segment = segment
        end.position = 0
        return true
    }

    /// One record; false at the end.
    private mutating func step(
        _ visit: (_ sequence: UInt64, _ record: Record) throws(ColdframeError) -> Bool
    ) throws(ColdframeError) -> Bool {
        guard let frame = RecordFrame(bytes[end.position...]), frame.log == log, frame.sequence == end.sequence,
            frame.predecessor == end.predecessor
        else { return false }
        let start = end.position + RecordFrame.byteCount
        let record: Record
        do throws(ColdframeError) {
            record = try Record(type: frame.type, payload: bytes[start..<start + Int(frame.payloadByteCount)])
        } catch {
            // Its checksum is right, so it was written like that: by another program or version.
            throw error.prefixed("Record \(frame.sequence) of sidecar '\(file.path)'")
        }
        var following: ClusterRun?
        if case .next(let cluster, let clusterCount) = record {
            following = ClusterRun(first: cluster, count: clusterCount)
        } else if try !visit(frame.sequence, record) {
            wasStopped = true
            return false
        }
        end.durableCount = max(end.durableCount, frame.durableCount)
        end.sequence += 1
        end.predecessor = frame.checksum
        byteCount += UInt64(frame.recordByteCount)
        if let following { return try enter(following) }
        end.position += frame.recordByteCount
        return true
    }

    private mutating func checkEnd(_ superblock: Superblock) {
        guard damage == nil else { return }
        var wanted = end.durableCount
        // Later records of this segment that are still whole, behind one that is not.
        var position = end.position + 8
        while position + RecordFrame.byteCount <= bytes.count {
            if bytes[position] == UInt8(truncatingIfNeeded: RecordFrame.magic),
                let frame = RecordFrame(bytes[position...]), frame.log == log, frame.sequence > end.sequence
            {
                wanted = max(wanted, frame.durableCount)
            }
            position += 8
        }
        guard end.sequence < wanted else { return }
        damage = Damage(
            sequence: end.sequence, offset: file.offset(ofCluster: end.segment.first) + UInt64(end.position),
            why: "record \(end.sequence) does not match its checksum, and \(wanted) records were written for certain")
    }
}

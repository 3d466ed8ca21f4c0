import ColdframeKit
import LinuxSystem

/// Appends records to the log. Used by one thread at a time: the leader of a group commit.
///
/// A batch is durable when `append` returns. If it throws, the batch is gone: its first bytes have been overwritten, so
/// that no later open takes for committed what was reported as failed. If even that fails, the log is `isUncertain`, and
/// nothing may change the raw file before an append, or `settle`, has succeeded.
struct LogWriter {
    static let segmentByteLimit: UInt64 = 4 << 20

    private let file: SidecarFile
    private let seed: UInt32
    private(set) var end: LogScan.End
    private(set) var segments: [ClusterRun]
    /// Bytes of records so far; what tells when the log is worth being written anew.
    private(set) var byteCount: UInt64
    private(set) var isUncertain = false

    /// Goes on where a scan found the end of the log with that seed.
    init(file: SidecarFile, seed: UInt32, end: LogScan.End, segments: [ClusterRun], byteCount: UInt64) {
        self.file = file
        self.seed = seed
        self.end = end
        self.segments = segments
        self.byteCount = byteCount
    }

    /// A new log that begins in `segment`. Its records count once a superblock names it.
    init(file: SidecarFile, segment: ClusterRun, seed: UInt32) {
        self.init(
            file: file, seed: seed,
            end: LogScan.End(segment: segment, position: 0, sequence: 0, predecessor: seed, durableCount: 0),
            segments: [segment], byteCount: 0)
    }

    private var segmentByteCount: Int { Int(end.segment.count) << Int(file.clusterBits) }
    private static let nextByteCount = RecordFrame.recordByteCount(payload: 8)

    /// Size of the segment that follows one of `clusterCount` clusters: the log of a small image stays small.
    private static func followingClusterCount(_ clusterCount: UInt32, _ clusterBits: UInt64) -> Int {
        min(Int(clusterCount) * 2, Int(segmentByteLimit >> clusterBits))
    }

    static func firstClusterCount(clusterBits: UInt64) -> Int { max(1, (256 << 10) >> Int(clusterBits)) }

    /// Writes records and makes them, and all that was written to the sidecar before, durable.
    mutating func append(
        _ records: [Record], allocate: (_ count: Int) throws(ColdframeError) -> ClusterRun
    ) throws(ColdframeError) {
        let start = end
        let startSegmentCount = segments.count
        do throws(ColdframeError) {
            try write(records, allocate)
            try file.flush()
            end.durableCount = end.sequence
            isUncertain = false
        } catch {
            // A segment that was entered meanwhile stays taken until the next open: what it holds is not to be
            // overwritten by somebody else before its predecessor is.
            end = start
            segments.removeLast(segments.count - startSegmentCount)
            isUncertain = true
            try? settle()
            throw error
        }
    }

    /// Makes sure that nothing behind the last committed record can be taken for one.
    mutating func settle() throws(ColdframeError) {
        guard isUncertain else { return }
        if end.position + RecordFrame.byteCount <= segmentByteCount {
            try file.write([UInt8](repeating: 0, count: RecordFrame.byteCount), at: offset)
            try file.flush()
        }
        isUncertain = false
    }

    /// The end as an open found it: what a crash left behind it is to be overwritten before anything else.
    mutating func distrustTail() { isUncertain = true }

    private var offset: UInt64 { file.offset(ofCluster: end.segment.first) + UInt64(end.position) }

    private mutating func write(
        _ records: [Record], _ allocate: (_ count: Int) throws(ColdframeError) -> ClusterRun
    ) throws(ColdframeError) {
        var pending: [UInt8] = []
        var position = end.position
        func send(_ pending: inout [UInt8], at position: Int, _ segment: ClusterRun) throws(ColdframeError) {
            guard !pending.isEmpty else { return }
            try file.write(pending, at: file.offset(ofCluster: segment.first) + UInt64(position))
            pending = []
        }
        for record in records {
            let payload = record.payload
            precondition(payload.count <= Limits.payloadByteCount, "a record is too long")
            let needed = RecordFrame.recordByteCount(payload: payload.count) + Self.nextByteCount
            if end.position + needed > segmentByteCount {
                let segment = try allocate(Self.followingClusterCount(end.segment.count, file.clusterBits))
                try file.ensureByteCount(
                    file.offset(ofCluster: segment.first) + (UInt64(segment.count) << file.clusterBits))
                // Durable before it is named: a log never leads outside its file.
                try file.flush()
                pending += frame(.next(cluster: segment.first, clusterCount: segment.count))
                try send(&pending, at: position, end.segment)
                end.segment = segment
                end.position = 0
                position = 0
                segments.append(segment)
            }
            let bytes = frame(record)
            pending += bytes
            end.position += bytes.count
        }
        try send(&pending, at: position, end.segment)
    }

    /// The record's bytes in its place in the chain.
    private mutating func frame(_ record: Record) -> [UInt8] {
        let payload = record.payload
        var frame = RecordFrame(
            type: record.type, payloadByteCount: UInt32(payload.count), log: seed,
            salt: SystemRandom.bytes(4).reduce(0) { $0 << 8 | UInt32($1) }, sequence: end.sequence,
            durableCount: end.durableCount, predecessor: end.predecessor)
        let bytes = frame.record(payload)
        end.sequence += 1
        end.predecessor = frame.checksum
        byteCount += UInt64(bytes.count)
        return bytes
    }
}

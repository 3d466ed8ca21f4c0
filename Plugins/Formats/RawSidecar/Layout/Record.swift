import ColdframeKit

/// One step in the life of a sidecar. What a sidecar holds is what its records say, in their order.
/// docs/formats/raw-sidecar.md, "Records".
enum Record: Equatable, Sendable {
    /// The log goes on in another segment.
    case next(cluster: UInt32, clusterCount: UInt32)
    case snapshot(SnapshotRecord)
    case deleted(generation: UInt32)
    case preserved([PreservedRun])
    /// Clusters of a state, in the order of its stream.
    case stateRuns(generation: UInt32, [StoredRun])
    /// The state of those runs belongs to the snapshot from here on.
    case stateAttached(
        generation: UInt32, byteCount: UInt64, guestClockNanoseconds: UInt64, annotation: [UInt8])
    /// The raw file is on its way to the content of `target`; `undo` keeps what was there.
    case revertBegun(target: UInt32, undo: SnapshotRecord)
    case revertEnded(undo: UInt32)
    /// Snapshots of these generations may be wrong: the raw file was changed behind our back, or something that they
    /// read was damaged.
    case suspect(first: UInt32, last: UInt32)
    /// A dirty bitmap, in place of one of the same name.
    case bitmap(StoredBitmap)
    case bitmapRemoved(name: String)

    var type: UInt16 {
        switch self {
        case .next: 1
        case .snapshot: 2
        case .deleted: 3
        case .preserved: 4
        case .stateRuns: 5
        case .stateAttached: 6
        case .revertBegun: 7
        case .revertEnded: 8
        case .suspect: 9
        case .bitmap: 10
        case .bitmapRemoved: 11
        }
    }
}

/// A snapshot's entry.
struct SnapshotRecord: Equatable, Sendable {
    /// Orders the snapshots of a sidecar in time; never used twice while anything refers to it.
    var generation: UInt32
    var info: SnapshotInfo
}

/// Guest clusters whose former content was kept.
struct PreservedRun: Equatable, Sendable {
    /// First guest cluster.
    var cluster: UInt64
    var generation: UInt32
    /// First cluster of the sidecar that holds the content; 0 if it was all zeros.
    var location: UInt32
    /// One per cluster; without a location, `zeroCount` stands for them.
    var checksums: [UInt32]
    var zeroCount: UInt32 = 0

    var clusterCount: Int { location == 0 ? Int(zeroCount) : checksums.count }
}

/// Clusters of the sidecar with their checksums.
struct StoredRun: Equatable, Sendable {
    var location: UInt32
    var checksums: [UInt32]
}

extension Record {
    var payload: [UInt8] {
        var writer = ByteWriter()
        switch self {
        case .next(let cluster, let clusterCount):
            writer.put(cluster)
            writer.put(clusterCount)
        case .snapshot(let snapshot): writer.put(snapshot)
        case .deleted(let generation), .revertEnded(let generation): writer.put(generation)
        case .suspect(let first, let last):
            writer.put(first)
            writer.put(last)
        case .bitmap(let bitmap): bitmap.put(into: &writer)
        case .bitmapRemoved(let name): writer.putCounted(Array(name.utf8))
        case .preserved(let runs):
            writer.put(UInt32(runs.count))
            for run in runs {
                writer.put(run.cluster)
                writer.put(UInt32(run.clusterCount))
                writer.put(run.generation)
                writer.put(run.location)
                for checksum in run.checksums { writer.put(checksum) }
            }
        case .stateRuns(let generation, let runs):
            writer.put(generation)
            writer.put(UInt32(runs.count))
            for run in runs {
                writer.put(run.location)
                writer.put(UInt32(run.checksums.count))
                for checksum in run.checksums { writer.put(checksum) }
            }
        case .stateAttached(let generation, let byteCount, let clock, let annotation):
            writer.put(generation)
            writer.put(byteCount)
            writer.put(clock)
            writer.putCounted(annotation)
        case .revertBegun(let target, let undo):
            writer.put(target)
            writer.put(undo)
        }
        return writer.bytes
    }

    init(type: UInt16, payload: ArraySlice<UInt8>) throws(ColdframeError) {
        var reader = ByteReader(payload)
        switch type {
        case 1: self = .next(cluster: try reader.take(), clusterCount: try reader.take())
        case 2: self = .snapshot(try reader.takeSnapshot())
        case 3: self = .deleted(generation: try reader.take())
        case 4: self = .preserved(try reader.takePreservedRuns())
        case 5:
            let generation: UInt32 = try reader.take()
            self = .stateRuns(generation: generation, try reader.takeStoredRuns())
        case 6:
            self = .stateAttached(
                generation: try reader.take(), byteCount: try reader.take(), guestClockNanoseconds: try reader.take(),
                annotation: try reader.takeCounted(limit: Limits.annotationByteCount, "an annotation"))
        case 7:
            let target: UInt32 = try reader.take()
            self = .revertBegun(target: target, undo: try reader.takeSnapshot())
        case 8: self = .revertEnded(undo: try reader.take())
        case 9: self = .suspect(first: try reader.take(), last: try reader.take())
        case 10: self = .bitmap(try StoredBitmap(&reader))
        case 11: self = .bitmapRemoved(name: try reader.takeText(limit: Limits.nameByteCount, "a bitmap's name"))
        default:
            throw ColdframeError(.unsupported, "a record has type \(type), which this version does not know")
        }
    }
}

extension ByteWriter {
    fileprivate mutating func put(_ snapshot: SnapshotRecord) {
        let info = snapshot.info
        put(snapshot.generation)
        put(info.dateSeconds)
        put(info.dateNanoseconds)
        put(UInt32(info.icount == nil ? 0 : 1))
        put(info.guestClockNanoseconds)
        put(info.diskByteCount)
        put(info.icount ?? 0)
        putCounted(Array(info.id.utf8))
        putCounted(Array(info.name.utf8))
        putCounted(info.annotation)
    }
}

extension ByteReader {
    fileprivate mutating func takeSnapshot() throws(ColdframeError) -> SnapshotRecord {
        let generation: UInt32 = try take()
        let dateSeconds: UInt32 = try take()
        let dateNanoseconds: UInt32 = try take()
        let hasInstructionCount = try take(UInt32.self) & 1 != 0
        let clock: UInt64 = try take()
        let diskByteCount: UInt64 = try take()
        let instructionCount: UInt64 = try take()
        let id = try takeText(limit: Limits.identifierByteCount, "a snapshot's id")
        let name = try takeText(limit: Limits.nameByteCount, "a snapshot's name")
        let annotation = try takeCounted(limit: Limits.annotationByteCount, "a snapshot's annotation")
        guard generation > 0, diskByteCount <= Limits.diskByteCount else {
            throw ColdframeError(.corrupt, "snapshot '\(name)' has an impossible generation or size")
        }
        return SnapshotRecord(
            generation: generation,
            info: SnapshotInfo(
                id: id, name: name, dateSeconds: dateSeconds, dateNanoseconds: dateNanoseconds,
                guestClockNanoseconds: clock, diskByteCount: diskByteCount,
                icount: hasInstructionCount ? instructionCount : nil, annotation: annotation))
    }

    fileprivate mutating func takePreservedRuns() throws(ColdframeError) -> [PreservedRun] {
        let count: UInt32 = try take()
        var runs: [PreservedRun] = []
        for _ in 0..<count {
            let cluster: UInt64 = try take()
            let clusterCount: UInt32 = try take()
            let generation: UInt32 = try take()
            let location: UInt32 = try take()
            guard Self.isRun(location, clusterCount), generation > 0, generation < .max,
                cluster < Limits.diskByteCount >> UInt64(Limits.clusterBits.lowerBound)
            else { throw ColdframeError(.corrupt, "a run of preserved clusters is impossible") }
            var run = PreservedRun(cluster: cluster, generation: generation, location: location, checksums: [])
            if location == 0 {
                run.zeroCount = clusterCount
            } else {
                run.checksums = try takeChecksums(clusterCount)
            }
            runs.append(run)
        }
        return runs
    }

    fileprivate mutating func takeStoredRuns() throws(ColdframeError) -> [StoredRun] {
        let count: UInt32 = try take()
        var runs: [StoredRun] = []
        for _ in 0..<count {
            let location: UInt32 = try take()
            let clusterCount: UInt32 = try take()
            guard location > 0, Self.isRun(location, clusterCount) else {
                throw ColdframeError(.corrupt, "a run of a state's clusters is impossible")
            }
            runs.append(StoredRun(location: location, checksums: try takeChecksums(clusterCount)))
        }
        return runs
    }

    static func isRun(_ location: UInt32, _ clusterCount: UInt32) -> Bool {
        clusterCount > 0 && clusterCount <= Limits.runClusterCount
            && UInt64(location) + UInt64(clusterCount) <= Limits.sidecarClusterCount
    }

    mutating func takeChecksums(_ count: UInt32) throws(ColdframeError) -> [UInt32] {
        // Four bytes each are there, or the first `take` that finds none throws.
        var checksums: [UInt32] = []
        for _ in 0..<count { checksums.append(try take()) }
        return checksums
    }
}

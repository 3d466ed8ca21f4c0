import ColdframeKit

/// What the records of a sidecar add up to. The same step, `apply`, replays a log and follows a live one.
struct Contents: Sendable {
    /// By generation, which is the order in which they were made.
    private(set) var snapshots: [Snapshot] = []
    var index = PreservedIndex()
    private(set) var revert: PendingRevert?
    /// Generations of snapshots that may be wrong.
    private(set) var suspects: Set<UInt32> = []
    private(set) var bitmaps: [StoredBitmap] = []
    private(set) var nextGeneration: UInt32 = 1
    /// Clusters of states that are not attached yet, by generation.
    private var unattached: [UInt32: [StoredRun]] = [:]
    private var unattachedClusterCount = 0

    struct Snapshot: Sendable {
        var record: SnapshotRecord
        var state: [StoredRun] = []
        var generation: UInt32 { record.generation }
        var info: SnapshotInfo { record.info }
    }

    /// A revert that has begun. Its undo is a snapshot that nobody but the revert sees.
    struct PendingRevert: Sendable {
        var target: UInt32
        var undo: Snapshot
    }

    mutating func apply(_ record: Record) throws(ColdframeError) {
        switch record {
        case .next: break
        case .snapshot(let record):
            try checkIsNew(record)
            snapshots.append(Snapshot(record: record))
        case .deleted(let generation):
            snapshots.remove(at: try position(generation))
            suspects.remove(generation)
            unattached[generation] = nil
        case .preserved(let runs):
            for run in runs { try insert(run) }
        case .stateRuns(let generation, let runs):
            _ = try position(generation)
            unattachedClusterCount += runs.reduce(0) { $0 + $1.checksums.count }
            guard unattachedClusterCount <= Limits.stateClusterCount else {
                throw ColdframeError(.corrupt, "a state is larger than a sidecar can hold")
            }
            unattached[generation, default: []] += runs
        case .stateAttached(let generation, let byteCount, let clock, let annotation):
            try attach(generation, byteCount, clock, annotation)
        case .revertBegun(let target, let undo):
            guard revert == nil else { throw ColdframeError(.corrupt, "a revert begins within another") }
            _ = try position(target)
            try checkIsNew(undo)
            revert = PendingRevert(target: target, undo: Snapshot(record: undo))
        case .revertEnded(let undo):
            guard revert?.undo.generation == undo else {
                throw ColdframeError(.corrupt, "a revert ends that has not begun")
            }
            revert = nil
        case .suspect(let first, let last):
            suspects.formUnion(snapshots.map(\.generation).filter { first <= $0 && $0 <= last })
        case .bitmap(let bitmap):
            bitmaps.removeAll { $0.name == bitmap.name }
            guard bitmaps.count < Limits.bitmapCount else {
                throw ColdframeError(.corrupt, "there are more than \(Limits.bitmapCount) bitmaps")
            }
            bitmaps.append(bitmap)
        case .bitmapRemoved(let name): bitmaps.removeAll { $0.name == name }
        }
    }

    private mutating func checkIsNew(_ record: SnapshotRecord) throws(ColdframeError) {
        guard record.generation >= nextGeneration, record.generation < .max else {
            throw ColdframeError(.corrupt, "generation \(record.generation) was used before")
        }
        guard !snapshots.contains(where: { $0.info.id == record.info.id }) else {
            throw ColdframeError(.corrupt, "two snapshots have the id '\(record.info.id)'")
        }
        guard snapshots.count < Limits.snapshotCount else {
            throw ColdframeError(
                .unsupported, "A sidecar has at most \(Limits.snapshotCount) snapshots: delete one", errno: 28)
        }
        nextGeneration = record.generation + 1
    }

    private mutating func insert(_ run: PreservedRun) throws(ColdframeError) {
        guard index.count + run.clusterCount <= Limits.preservedCount else {
            throw ColdframeError(
                .unsupported, "A sidecar keeps at most \(Limits.preservedCount) clusters: delete a snapshot", errno: 28)
        }
        nextGeneration = max(nextGeneration, run.generation &+ 1)
        for offset in 0..<run.clusterCount {
            let location = run.location == 0 ? 0 : run.location + UInt32(offset)
            index.insert(
                cluster: run.cluster + UInt64(offset), generation: run.generation, location: location,
                checksum: run.location == 0 ? 0 : run.checksums[offset])
        }
    }

    private mutating func attach(
        _ generation: UInt32, _ byteCount: UInt64, _ clock: UInt64, _ annotation: [UInt8]
    ) throws(ColdframeError) {
        let position = try position(generation)
        guard snapshots[position].state.isEmpty, snapshots[position].info.vmStateByteCount == 0 else {
            throw ColdframeError(.corrupt, "a snapshot gets a second state")
        }
        unattachedClusterCount = 0
        snapshots[position].state = unattached.removeValue(forKey: generation) ?? []
        snapshots[position].record.info.vmStateByteCount = byteCount
        snapshots[position].record.info.guestClockNanoseconds = clock
        snapshots[position].record.info.annotation = annotation
    }

    /// The snapshot becomes one of the disk alone.
    mutating func removeState(ofGeneration generation: UInt32) {
        guard let position = snapshots.firstIndex(where: { $0.generation == generation }) else { return }
        snapshots[position].state = []
        snapshots[position].record.info.vmStateByteCount = 0
    }

    func position(_ generation: UInt32) throws(ColdframeError) -> Int {
        guard let position = snapshots.firstIndex(where: { $0.generation == generation }) else {
            throw ColdframeError(.corrupt, "a record names generation \(generation), which no snapshot has")
        }
        return position
    }

    func snapshot(id: String) throws(ColdframeError) -> Snapshot {
        guard let snapshot = snapshots.first(where: { $0.info.id == id }) else {
            throw ColdframeError(.notFound, "Sidecar has no snapshot with id '\(id)'")
        }
        return snapshot
    }

    // MARK: What is read

    /// All whose content must be kept, in order.
    var readers: [Snapshot] { revert.map { snapshots + [$0.undo] } ?? snapshots }

    /// The newest of them: what is kept from now on carries its generation.
    var newest: Snapshot? { revert?.undo ?? snapshots.last }

    /// Whether somebody reads the cluster from the raw file, so that it must be kept before it changes. After disks of
    /// several sizes that need not be the newest snapshot, which may be too short.
    func needsKeeping(_ cluster: UInt64, clusterBits: UInt64) -> Bool {
        let start = cluster << clusterBits
        if let undo = revert?.undo, undo.info.diskByteCount > start {
            return index.entry(of: cluster, from: undo.generation) == nil
        }
        guard let reader = snapshots.last(where: { $0.info.diskByteCount > start }) else { return false }
        return index.entry(of: cluster, from: reader.generation) == nil
    }

    func isSuspect(_ snapshot: Snapshot) -> Bool { suspects.contains(snapshot.generation) }

    /// Drops what nobody reads from one bucket of the index; the sidecar's clusters that held it.
    mutating func collect(bucket: UInt64, clusterBits: UInt64) -> [UInt32] {
        let readers = readers.map { (generation: $0.generation, byteCount: $0.info.diskByteCount) }
        return index.collect(bucket: bucket) { cluster, after, through in
            let start = cluster << clusterBits
            var position = readers.partitioningIndex { $0.generation > after }
            while position < readers.count, readers[position].generation <= through {
                if readers[position].byteCount > start { return true }
                position += 1
            }
            return false
        }
    }

    /// All clusters that states take.
    var stateRuns: [StoredRun] { snapshots.flatMap(\.state) }
}

extension Array {
    /// The first index from which on all elements satisfy `isBehind`; they are ordered so that such an index exists.
    fileprivate func partitioningIndex(_ isBehind: (Element) -> Bool) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if isBehind(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

import ColdframeKit
import LinuxSystem
import Synchronization

/// Where a piece of the virtual disk has its content.
struct MappedRun: Sendable, Equatable {
    enum Kind: Sendable, Equatable {
        /// No entry: the backing file's content, or zeros.
        case unallocated
        /// Reads as zeros whatever the backing file holds.
        case zero
        case data(HostOffset)
        /// A whole compressed cluster, in which the run begins `skip` bytes behind its start.
        case compressed(CompressedRange, skip: UInt64)
    }
    var kind: Kind
    var byteCount: UInt64
}

extension MappedRun.Kind {
    /// Whether this is more of `first`, which began `byteCount` bytes before.
    fileprivate func continues(_ first: Self, after byteCount: UInt64) -> Bool {
        switch (first, self) {
        case (.unallocated, .unallocated), (.zero, .zero): true
        case (.data(let start), .data(let here)): here.rawValue == start.rawValue + byteCount
        default: false
        }
    }
}

/// The two-level table from guest clusters to host clusters, of the active disk or of a snapshot.
///
/// Lookups hold a short lock and do no I/O under it: a slice that is not cached is read outside and put in if nothing
/// changed meanwhile. Changes go to the file under the lock (one small write into the page cache), so that the cache
/// never holds anything that the file does not.
final class ClusterMap: Sendable {
    let file: ImageFile
    let geometry: Geometry
    let state: Guarded<State>
    /// Waited on by writers whose cluster is being allocated by another.
    private let inFlightEnded = ConditionVariable()
    private let waiterCount = Atomic<Int>(0)

    struct State: ~Copyable {
        /// In host order.
        var l1: [UInt64]
        var l1Offset: HostOffset
        var cache: SliceCache
        /// Counts changes of entries, so that a slice that was read outside the lock is known to be fresh.
        var changeCount: UInt64 = 0
        /// Guest clusters that are being allocated, each range by one writer. As many as there are writers at most.
        var inFlight: [ClusterRun] = []
    }

    init(file: ImageFile, geometry: Geometry, l1: [UInt64], l1Offset: HostOffset, cacheByteLimit: Int) {
        self.file = file
        self.geometry = geometry
        state = Guarded(
            State(
                l1: l1, l1Offset: l1Offset,
                cache: SliceCache(byteLimit: cacheByteLimit, sliceByteCount: geometry.sliceByteCount)))
    }

    // MARK: Lookup

    /// The content of the disk from `offset` on, for at most `byteCount` bytes (not 0).
    func lookup(_ offset: GuestOffset, byteCount: UInt64) throws(ColdframeError) -> MappedRun {
        try withSlice(offset) { (_, slice) throws(ColdframeError) in
            try self.run(slice, offset, byteCount)
        }
    }

    /// Runs `body` under the lock with the slice that maps `offset`, or nil where there is no L2 table.
    func withSlice<Result: Sendable>(
        _ offset: GuestOffset,
        _ body: (inout State, UnsafeMutablePointer<UInt64>?) throws(ColdframeError) -> Result
    ) throws(ColdframeError) -> Result {
        while true {
            let step = try state.withLock { state throws(ColdframeError) -> SliceStep<Result> in
                guard let key = try self.sliceKey(state, offset) else { return .done(try body(&state, nil)) }
                guard let slice = state.cache.find(key) else {
                    return .missing(key: key, changeCount: state.changeCount)
                }
                return .done(try body(&state, slice))
            }
            switch step {
            case .done(let result): return result
            case .missing(let key, let changeCount): try load(key, changeCount)
            }
        }
    }

    /// Host offset of the slice that maps `offset`; nil where there is no L2 table.
    private func sliceKey(_ state: borrowing State, _ offset: GuestOffset) throws(ColdframeError) -> UInt64? {
        let l1Index = offset.rawValue / geometry.l2TableSpan
        guard l1Index < UInt64(state.l1.count) else { return nil }
        let table = state.l1[Int(l1Index)] & EntryBits.offsetMask
        guard table != 0 else { return nil }
        guard geometry.isClusterAligned(table) else {
            throw ColdframeError(
                .corrupt, "L2 table offset \(table) is not aligned to a cluster (L1 index \(l1Index))")
        }
        let slice = offset.rawValue % geometry.l2TableSpan / geometry.sliceSpan
        return table + slice * UInt64(geometry.sliceByteCount)
    }

    /// Reads a slice without the lock and caches it, unless an entry changed meanwhile.
    private func load(_ key: UInt64, _ changeCount: UInt64) throws(ColdframeError) {
        let words = UnsafeMutableBufferPointer<UInt64>.allocate(capacity: geometry.sliceByteCount / 8)
        defer { words.deallocate() }
        file.announce(.loadL2Table)
        try file.readMetadata(into: UnsafeMutableRawBufferPointer(words), at: HostOffset(key), "L2 table")
        swapWords(words)
        // The buffer outlives the closure, which runs before this returns.
        nonisolated(unsafe) let source = words
        state.withLock { state in
            guard state.changeCount == changeCount, state.cache.find(key) == nil else { return }
            // A slice has 64 words or more, so the buffer has a base address.
            state.cache.insert(key).update(from: source.baseAddress!, count: source.count)
        }
    }

    private func run(
        _ slice: UnsafeMutablePointer<UInt64>?, _ offset: GuestOffset, _ byteCount: UInt64
    ) throws(ColdframeError) -> MappedRun {
        guard let slice else {
            let rest = geometry.l2TableSpan - offset.rawValue % geometry.l2TableSpan
            return MappedRun(kind: .unallocated, byteCount: min(rest, byteCount))
        }
        let inSlice = offset.rawValue % geometry.sliceSpan
        var index = Int(inSlice >> UInt64(geometry.clusterBits))
        var skip = inSlice & geometry.clusterMask
        var first = MappedRun.Kind.unallocated
        var covered: UInt64 = 0
        while covered < byteCount, index < geometry.sliceEntryCount {
            let (kind, length) = try piece(L2Entry(slice, index, geometry), skip: skip)
            if covered == 0 {
                first = kind
                // Each compressed cluster is a run of its own.
                if case .compressed = kind { return MappedRun(kind: kind, byteCount: min(length, byteCount)) }
            } else if !kind.continues(first, after: covered) {
                break
            }
            covered += length
            skip += length
            if skip == geometry.clusterByteCount {
                index += 1
                skip = 0
            }
        }
        return MappedRun(kind: first, byteCount: min(covered, byteCount))
    }

    /// The run of equal subclusters from byte `skip` of a cluster on, within the cluster.
    private func piece(_ entry: L2Entry, skip: UInt64) throws(ColdframeError) -> (MappedRun.Kind, UInt64) {
        let status = try ClusterStatus(entry, geometry)
        if let compressed = status.compressed {
            return (.compressed(compressed, skip: skip), geometry.clusterByteCount - skip)
        }
        let index = skip / geometry.subclusterByteCount
        let run = status.run(from: Int(index), geometry)
        let length = (index + UInt64(run.count)) * geometry.subclusterByteCount - skip
        switch run.kind {
        // Whoever has data has a host cluster.
        case .data: return (.data((status.host ?? HostOffset(0)) + skip), length)
        case .zero: return (.zero, length)
        case .unallocated: return (.unallocated, length)
        }
    }

    // MARK: Clusters in flight

    /// Waits until nobody allocates in `run`. Called without the lock.
    func waitUntilFree(_ run: ClusterRun) {
        waiterCount.add(1, ordering: .sequentiallyConsistent)
        defer { waiterCount.subtract(1, ordering: .sequentiallyConsistent) }
        inFlightEnded.wait { self.state.withLock { $0.firstConflict(run) == nil } }
    }

    /// Ends an allocation that `State.inFlight` lists, and wakes those that wait. Called without the lock.
    func endInFlight(_ run: ClusterRun) {
        state.withLock { $0.removeInFlight(run) }
        wakeWaiters()
    }

    func wakeWaiters() {
        if waiterCount.load(ordering: .sequentiallyConsistent) > 0 { inFlightEnded.broadcast() }
    }
}

/// The outcome of a visit to a slice under the lock.
private enum SliceStep<Result: Sendable>: Sendable {
    case done(Result)
    case missing(key: UInt64, changeCount: UInt64)
}

extension ClusterMap.State {
    /// The first cluster of `run` that somebody allocates.
    func firstConflict(_ run: ClusterRun) -> UInt64? {
        var found: UInt64?
        for other in inFlight where other.first < run.end && run.first < other.end {
            found = min(found ?? .max, max(other.first, run.first))
        }
        return found
    }

    mutating func removeInFlight(_ run: ClusterRun) {
        if let index = inFlight.firstIndex(of: run) {
            inFlight.swapAt(index, inFlight.count - 1); inFlight.removeLast()
        }
    }
}

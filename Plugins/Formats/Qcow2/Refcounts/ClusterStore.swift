import ColdframeKit
import Synchronization

/// The host clusters of an image: which are free, which are reserved for writers, which wait to become free; and the header.
///
/// **Reserved ahead.** A cluster's refcount must be on stable storage before an L2 entry points to it. So clusters are
/// reserved in batches whose refcounts are flushed before the first of them is handed out: an allocating write costs
/// no flush. A crash leaks what was reserved; `close` gives it back.
///
/// **Freed late.** A cluster that an entry no longer points to keeps its refcount until that entry is on stable storage
/// (else power loss could leave an entry whose cluster serves something else) and until no request can know it
/// (`RequestEpochs`). Both happen at flushes.
///
/// Any thread. The lock is never held across a flush, except in a `MetadataTransaction`, a `HeaderSwitch` and `settleHeader`.
final class ClusterStore: Sendable {
    let file: ImageFile
    let data: DataFile
    let geometry: Geometry
    let guardian: MetadataGuard
    let policy: DiscardPolicy
    let epochs = RequestEpochs()
    let state: Guarded<State>
    /// The file's length when it was opened; it never becomes shorter.
    private let openedByteCount: UInt64

    struct State: ~Copyable {
        var header: Header
        var names: HeaderNames
        /// What the file must begin with again, after a change of the header that failed and could not be taken back: see
        /// `settleHeader`.
        var owedHeader: [UInt8]?
        let refcounts: RefcountTable
        /// Handed out next. Refcount 1 on stable storage, nothing points to them.
        var ready: [Reserved] = []
        /// Refcount 1, written but not yet flushed.
        var pending: [Reserved] = []
        /// Clusters in the next batch.
        var batchCount: UInt64
        /// No cluster with a refcount block is free before this one.
        var searchStart: UInt64 = 0
        /// From here on the file has only zeros.
        var freshStart: UInt64
        /// No longer pointed to, since less than one flush.
        var unlinked: [Freeing] = []
        /// Durably no longer pointed to, by the epoch in which that became so.
        var waiting: [[Freeing]] = [[], []]
    }

    struct Reserved: Sendable {
        var run: ClusterRun
        /// The file has zeros there.
        var isFresh: Bool
    }

    struct Freeing: Sendable {
        var run: ClusterRun
        var cause: FreeingCause
    }

    private static let batchByteLimit: UInt64 = 32 << 20
    private static let firstBatchByteCount: UInt64 = 1 << 20
    /// Beyond so many runs waiting for a flush, a writer flushes itself.
    static let unlinkedLimit = 16384

    init(
        file: ImageFile, data: DataFile, header: Header, names: HeaderNames, refcounts: sending RefcountTable,
        guardian: MetadataGuard,
        policy: DiscardPolicy
    ) {
        self.file = file
        self.data = data
        self.guardian = guardian
        self.policy = policy
        geometry = header.geometry
        openedByteCount = file.byteCount
        state = Guarded(
            State(
                header: header, names: names, refcounts: refcounts,
                batchCount: max(8, Self.firstBatchByteCount >> UInt64(geometry.clusterBits)),
                freshStart: geometry.clusterCount(forByteCount: file.byteCount)))
    }

    var header: Header { state.withLock { $0.header } }
    var names: HeaderNames { state.withLock { $0.names } }

    // MARK: Reserve

    /// Takes up to `limit` reserved clusters in a row. The caller either points an entry to each or gives it back.
    func takeReserved(limit: UInt64) throws(ColdframeError) -> Reserved {
        file.announce(.allocateClusters)
        while true {
            let taken = try state.withLock { state throws(ColdframeError) -> Reserved? in
                if let taken = state.takeReady(limit) {
                    // The next batch is written early: a flush of the guest's then makes it ready at no cost.
                    if state.ready.count <= 1, state.pending.isEmpty,
                        (state.ready.first?.run.count ?? 0) < state.batchCount / 4
                    {
                        try? self.reserve(&state)
                    }
                    return taken
                }
                if state.pending.isEmpty { try self.reserve(&state) }
                return nil
            }
            if let taken { return taken }
            try flush()
        }
    }

    private func reserve(_ state: inout State) throws(ColdframeError) {
        let wanted = state.batchCount
        state.batchCount = min(state.batchCount * 2, max(8, Self.batchByteLimit >> UInt64(geometry.clusterBits)))
        var count: UInt64 = 0
        while count < wanted {
            let reserved: Reserved
            do {
                reserved = try allocate(&state, limit: wanted - count)
            } catch {
                // A full host: what was got so far is worth handing out.
                if count > 0 { return }
                throw error
            }
            state.pending.append(reserved)
            count += reserved.run.count
        }
    }

    /// Raises the refcounts of up to `limit` free clusters in a row; the file reaches over them.
    private func allocate(_ state: inout State, limit: UInt64) throws(ColdframeError) -> Reserved {
        try settleHeader(&state)
        while true {
            if let run = try state.refcounts.findFree(from: state.searchStart, limit: limit) {
                guard run.end <= Limits.hostByteCount >> UInt64(geometry.clusterBits) else {
                    throw ColdframeError(.unsupported, "The image file has no more room in its format", errno: 27)
                }
                try guardian.check(run)
                try file.ensureByteCount(run.end << UInt64(geometry.clusterBits))
                try state.refcounts.adjust(run, raise: true)
                state.searchStart = run.end
                let isFresh = run.first >= state.freshStart
                state.freshStart = max(state.freshStart, run.end)
                return Reserved(run: run, isFresh: isFresh)
            }
            try addRefcountBlocks(&state)
        }
    }

    /// Every refcount block is full: makes the next ones, for at least 16 MiB.
    private func addRefcountBlocks(_ state: inout State) throws(ColdframeError) {
        file.announce(.allocateRefcountBlock)
        let span = geometry.refcountBlockEntryCount << UInt64(geometry.clusterBits)
        let missing = state.refcounts.missingBlocks(count: Int(max(1, (16 << 20) / span)))
        let transaction = MetadataTransaction(
            table: state.refcounts, searchStart: missing[0] * geometry.refcountBlockEntryCount)
        for index in missing { try transaction.addBlock(index) }
        try commit(transaction, &state) { _ in }
    }

    /// Takes clusters for something that is pointed to only after a flush of its own: the state of a machine, tables.
    func allocateUnflushed(limit: UInt64) throws(ColdframeError) -> ClusterRun {
        try state.withLock { state throws(ColdframeError) in try self.allocate(&state, limit: limit).run }
    }

    /// Takes `count` clusters in a row, likewise.
    func allocateContiguous(_ count: UInt64) throws(ColdframeError) -> ClusterRun {
        try state.withLock { state throws(ColdframeError) in
            let found = try self.findContiguous(&state, count)
            try self.guardian.check(found)
            try self.file.ensureByteCount(found.end << UInt64(self.geometry.clusterBits))
            try state.refcounts.adjust(found, raise: true)
            state.freshStart = max(state.freshStart, found.end)
            return found
        }
    }

    /// Takes up to `wanted` clusters in a row that may get so many references each, durably.
    func reserveShared(atLeast: UInt64, wanted: UInt64, references: UInt64) throws(ColdframeError) -> ClusterRun {
        let run = try state.withLock { state throws(ColdframeError) in
            var run = try self.allocate(&state, limit: wanted).run
            if run.count < atLeast {
                try state.refcounts.adjust(run, raise: false)
                state.searchStart = min(state.searchStart, run.first)
                run = try self.findContiguous(&state, atLeast)
                try self.guardian.check(run)
                try self.file.ensureByteCount(run.end << UInt64(self.geometry.clusterBits))
                state.freshStart = max(state.freshStart, run.end)
            }
            try state.refcounts.set(run) { _, _ in references }
            return run
        }
        try flush()
        return run
    }

    /// Corrects the refcounts of clusters from `reserveShared`. An error leaves them too high: a leak.
    func lowerShared(_ run: ClusterRun, _ refcount: (_ cluster: UInt64, _ old: UInt64) -> UInt64) {
        state.withLock { state in
            try? state.refcounts.set(run, refcount)
            state.searchStart = min(state.searchStart, run.first)
        }
    }

    private func findContiguous(_ state: inout State, _ count: UInt64) throws(ColdframeError) -> ClusterRun {
        try settleHeader(&state)
        var start = state.searchStart
        while true {
            guard var found = try state.refcounts.findFree(from: start, limit: count) else {
                try addRefcountBlocks(&state)
                continue
            }
            // What lies before is not looked at again.
            if start == state.searchStart { state.searchStart = found.first }
            start = found.first
            while found.count < count {
                // A run may go on in the next refcount block.
                guard let next = try state.refcounts.findFree(from: found.end, limit: count - found.count) else {
                    try addRefcountBlocks(&state)
                    continue
                }
                if next.first != found.end {
                    start = next.first
                    break
                }
                found.count += next.count
            }
            if found.count == count { return found }
        }
    }

    /// Gives back clusters that nothing has pointed to.
    func giveBack(_ run: ClusterRun) {
        state.withLock { $0.ready.append(Reserved(run: run, isFresh: false)) }
    }

    /// Clusters of the file that something refers to; counts no further than to `limit`.
    func usedClusterCount(upTo limit: UInt64) throws(ColdframeError) -> UInt64 {
        try state.withLock { (state) throws(ColdframeError) in
            try state.refcounts.usedCount(before: geometry.clusterCount(forByteCount: file.byteCount), upTo: limit)
        }
    }

    // MARK: Close

    /// Gives back all that is reserved or waiting, and cuts the file behind its last used cluster. No request is in
    /// flight.
    func close() throws(ColdframeError) {
        try flush()
        let rest = state.withLock { state in
            defer {
                state.ready = []
                state.pending = []
                state.waiting = [[], []]
            }
            return state.waiting[0] + state.waiting[1]
                + (state.ready + state.pending).map { Freeing(run: $0.run, cause: .other) }
        }
        finish(rest)
        let end = try state.withLock { state throws(ColdframeError) -> UInt64 in
            var end = self.geometry.clusterCount(forByteCount: self.file.byteCount)
            let floor = self.geometry.clusterCount(forByteCount: self.openedByteCount)
            while end > floor, try state.refcounts.refcount(ofCluster: end - 1) == 0 { end -= 1 }
            return end
        }
        do throws(ColdframeError) {
            try file.truncate(toByteCount: max(openedByteCount, end << UInt64(geometry.clusterBits)))
        } catch {
            // What grows and cannot be cut stays so long.
            guard error.code == .unsupported else { throw error }
        }
        try file.flush()
    }
}

extension ClusterStore.State {
    /// Up to `limit` clusters of the first ready run.
    mutating func takeReady(_ limit: UInt64) -> ClusterStore.Reserved? {
        guard var first = ready.first else { return nil }
        var taken = first
        taken.run.count = min(limit, first.run.count)
        if taken.run.count == first.run.count {
            ready.removeFirst()
        } else {
            first.run.first += taken.run.count
            first.run.count -= taken.run.count
            ready[0] = first
        }
        return taken
    }
}

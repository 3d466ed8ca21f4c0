import ColdframeKit

/// How clusters become free: after a flush, and when nobody can know them any more.
extension ClusterStore {
    /// Takes note that an entry no longer points to these clusters; each loses one reference after the next flush.
    func releaseAfterFlush(_ runs: [Freeing]) throws(ColdframeError) {
        guard !runs.isEmpty else { return }
        let isFull = state.withLock { state in
            state.unlinked.append(contentsOf: runs)
            return state.unlinked.count > Self.unlinkedLimit
        }
        if isFull { try flush() }
    }

    /// Takes one reference from each cluster at once: nothing on stable storage points to them, nobody uses them.
    func freeNow(_ runs: [ClusterRun], cause: FreeingCause) {
        finish(runs.map { Freeing(run: $0, cause: cause) })
    }

    /// Makes everything durable that was written before; then what waited for it becomes ready or free.
    func flush() throws(ColdframeError) {
        let (unlinked, pending) = try state.withLock { state throws(ColdframeError) in
            try self.settleHeader(&state)
            defer {
                state.unlinked = []
                state.pending = []
            }
            return (state.unlinked, state.pending)
        }
        do {
            if data.isExternal { try data.file.flush() }
            try file.flush()
        } catch {
            state.withLock { state in
                state.unlinked.append(contentsOf: unlinked)
                state.pending.append(contentsOf: pending)
            }
            throw error
        }
        guard !unlinked.isEmpty || !pending.isEmpty || hasWaiting else { return }
        let free = state.withLock { state in
            state.ready.append(contentsOf: pending)
            state.waiting[self.epochs.currentEpoch].append(contentsOf: unlinked)
            var free: [Freeing] = []
            // Twice: if no request is in flight, both epochs are empty.
            for _ in 0..<2 {
                guard let epoch = self.epochs.tryAdvance() else { break }
                free.append(contentsOf: state.waiting[epoch])
                state.waiting[epoch] = []
            }
            return free
        }
        finish(free)
    }

    private var hasWaiting: Bool {
        state.withLock { $0.waiting[0].isEmpty && $0.waiting[1].isEmpty } == false
    }

    /// Lowers the refcounts. The space goes back to the host before the clusters can serve anything else.
    func finish(_ freeing: [Freeing]) {
        if !freeing.isEmpty { file.announce(.freeClusters) }
        guard !freeing.isEmpty else { return }
        let sorted = Self.coalesce(freeing)
        let holes = state.withLock { state -> [ClusterRun]? in
            // The header in the file may point there still. What is not freed is a leak.
            guard state.owedHeader == nil else { return nil }
            // What a snapshot has as well stays.
            return sorted.flatMap { item in
                policy.passesDiscards(of: item.cause) ? state.refcounts.runs(of: 1, in: item.run) : []
            }
        }
        guard let holes else { return }
        for hole in holes {
            file.discard(
                at: geometry.hostOffset(ofCluster: hole.first), byteCount: hole.count << UInt64(geometry.clusterBits))
        }
        state.withLock { state in
            for item in sorted {
                // An error leaves the reference standing: a leak, found by a check. The data is safe.
                try? state.refcounts.adjust(item.run, raise: false) { guardian.remove($0) }
                state.searchStart = min(state.searchStart, item.run.first)
            }
        }
    }

    /// Gives the space of those clusters back that are free, under the lock so that nobody takes them meanwhile.
    func discardIfFree(_ run: ClusterRun) {
        state.withLock { state in
            for free in state.refcounts.runs(of: 0, in: run) {
                file.discard(
                    at: geometry.hostOffset(ofCluster: free.first),
                    byteCount: free.count << UInt64(geometry.clusterBits))
            }
        }
    }

    /// Sorted, with neighbours joined; a cluster that lost two references stays twice.
    private static func coalesce(_ freeing: [Freeing]) -> [Freeing] {
        var result: [Freeing] = []
        for item in freeing.sorted(by: { $0.run.first < $1.run.first }) {
            if let last = result.last, last.run.end == item.run.first, last.cause == item.cause {
                result[result.count - 1].run.count += item.run.count
            } else {
                result.append(item)
            }
        }
        return result
    }
}

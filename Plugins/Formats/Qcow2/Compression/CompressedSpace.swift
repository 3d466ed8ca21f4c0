import ColdframeKit

/// Room in the image file for compressed clusters, which lie one behind the other without regard to cluster bounds.
///
/// Each holds a reference to every host cluster that it touches, and those must be on stable storage before an entry
/// points there. So a stretch of clusters gets refcounts for more references than will come, in one flushed step; when the
/// stretch is full they are lowered to what is there. A crash leaves them too high: a leak.
///
/// Any thread. The lock is held while the next stretch is made, not while data is written.
final class CompressedSpace: Sendable {
    private let store: ClusterStore
    private let geometry: Geometry
    private let state = Guarded(State())
    /// References that a cluster may get.
    private let bound: UInt64

    private struct State: ~Copyable {
        var stretch = ClusterRun(first: 0, count: 0)
        /// Byte in the file at which the next compressed cluster begins.
        var position: UInt64 = 0
        /// References per cluster of the stretch.
        var uses: [UInt64] = []
        var nextByteCount: UInt64 = 4 << 20
    }

    private static let stretchByteLimit: UInt64 = 64 << 20
    private static let boundLimit: UInt64 = 1024

    init(store: ClusterStore) {
        self.store = store
        geometry = store.geometry
        bound = min(store.geometry.refcountMaximum, Self.boundLimit)
    }

    /// Takes room for one compressed cluster, which is smaller than a cluster. The caller points an entry there or gives
    /// it back. `onNewStretch` is called when clusters that served something else may be taken from now on.
    func take(byteCount: UInt64, onNewStretch: () -> Void) throws(ColdframeError) -> CompressedRange {
        try state.withLock { state throws(ColdframeError) in
            while true {
                if let range = self.fit(&state, byteCount) { return range }
                self.retire(&state)
                onNewStretch()
                try self.begin(&state)
            }
        }
    }

    private func fit(_ state: inout State, _ byteCount: UInt64) -> CompressedRange? {
        let end = geometry.hostOffset(ofCluster: state.stretch.end).rawValue
        while state.stretch.count > 0, byteCount <= end - min(end, state.position) {
            let range = CompressedRange(offset: state.position, byteCount: byteCount)
            let clusters = range.clusters(geometry)
            if clusters.allSatisfy({ state.uses[Int($0 - state.stretch.first)] < bound }) {
                for cluster in clusters { state.uses[Int(cluster - state.stretch.first)] += 1 }
                state.position += byteCount
                return range
            }
            state.position = geometry.hostOffset(ofCluster: clusters.lowerBound + 1).rawValue
        }
        return nil
    }

    private func begin(_ state: inout State) throws(ColdframeError) {
        // A compressed cluster may begin anywhere and ends less than a cluster later: two clusters are the least.
        let wanted = max(2, state.nextByteCount >> UInt64(geometry.clusterBits))
        let run = try store.reserveShared(atLeast: 2, wanted: wanted, references: bound)
        state.stretch = run
        state.position = geometry.hostOffset(ofCluster: run.first).rawValue
        state.uses = [UInt64](repeating: 0, count: Int(run.count))
        state.nextByteCount = min(state.nextByteCount * 2, Self.stretchByteLimit)
    }

    /// Lowers the refcounts of the stretch to the references that there are. No error: one leaves a leak.
    private func retire(_ state: inout State) {
        guard state.stretch.count > 0 else { return }
        let stretch = state.stretch
        let uses = state.uses
        state.stretch.count = 0
        state.uses = []
        store.lowerShared(stretch) { cluster, old in
            let unused = self.bound - uses[Int(cluster - stretch.first)]
            return old >= unused ? old - unused : old
        }
    }

    /// Nothing points to the range.
    func giveBack(_ range: CompressedRange) {
        let clusters = range.clusters(geometry)
        let isCurrent = state.withLock { state in
            guard state.stretch.count > 0, clusters.lowerBound >= state.stretch.first,
                clusters.upperBound < state.stretch.end
            else { return false }
            for cluster in clusters { state.uses[Int(cluster - state.stretch.first)] -= 1 }
            return true
        }
        if !isCurrent {
            store.freeNow(
                [ClusterRun(first: clusters.lowerBound, count: UInt64(clusters.count))], cause: .other)
        }
    }

    /// Makes the refcounts exact, when the image is closed or its snapshots change.
    func settle() {
        state.withLock { self.retire(&$0) }
    }
}

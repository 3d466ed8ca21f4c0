import Synchronization

/// Tells when every request that may have looked up a mapping before some instant has ended.
///
/// A request that writes in place has looked its cluster up under the map's lock and writes without it. If the cluster
/// is discarded meanwhile, it must not serve other data before that write has ended. So requests count themselves in
/// one of two epochs, and what became free waits until the epochs that could know it are empty.
final class RequestEpochs: Sendable {
    private let current = Atomic<Int>(0)
    private let count0 = Atomic<Int>(0)
    private let count1 = Atomic<Int>(0)

    /// Before the first lookup of a request. Returns what `leave` needs.
    func enter() -> Int {
        while true {
            let epoch = current.load(ordering: .sequentiallyConsistent)
            add(1, to: epoch)
            // If the epoch changed between, its emptiness may already have been relied on: count in the new one.
            if current.load(ordering: .sequentiallyConsistent) == epoch { return epoch }
            add(-1, to: epoch)
        }
    }

    func leave(_ epoch: Int) { add(-1, to: epoch) }

    private func add(_ value: Int, to epoch: Int) {
        if epoch == 0 {
            count0.add(value, ordering: .sequentiallyConsistent)
        } else {
            count1.add(value, ordering: .sequentiallyConsistent)
        }
    }

    var currentEpoch: Int { current.load(ordering: .sequentiallyConsistent) }

    /// If the epoch that is not current is empty, makes it current and returns its number: what was put aside while it
    /// was current before is now known to nobody. One caller at a time.
    func tryAdvance() -> Int? {
        let other = 1 - currentEpoch
        let count =
            other == 0
            ? count0.load(ordering: .sequentiallyConsistent) : count1.load(ordering: .sequentiallyConsistent)
        guard count == 0 else { return nil }
        current.store(other, ordering: .sequentiallyConsistent)
        return other
    }
}

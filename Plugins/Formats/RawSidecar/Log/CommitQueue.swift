import ColdframeKit
import LinuxSystem

/// Group commit: requests that come while a batch is being made durable go into the next, together.
///
/// Whoever finds the queue idle leads: it takes what has gathered, runs the batch on its own thread, and wakes the
/// others. So one flush of the sidecar serves all writers that wait, and a lone writer waits for nobody.
final class CommitQueue<Item: Sendable>: Sendable {
    private struct State {
        var waiting: [Ticket] = []
        var isRunning = false
    }

    /// One request and what became of it.
    private final class Ticket: Sendable {
        let item: Item
        let outcome = Locked<Result<Void, ColdframeError>?>(nil)
        init(_ item: Item) { self.item = item }
    }

    private let state = Locked(State())
    private let changed = ConditionVariable()

    /// Returns when a batch that holds `item` has been run. `run` is called by one thread at a time.
    func commit(_ item: Item, run: (_ batch: [Item]) throws(ColdframeError) -> Void) throws(ColdframeError) {
        let ticket = Ticket(item)
        state.withLock { $0.waiting.append(ticket) }
        while true {
            if let outcome = ticket.outcome.withLock({ $0 }) { return try outcome.get() }
            if let batch = takeLead() {
                let outcome: Result<Void, ColdframeError>
                do throws(ColdframeError) {
                    try run(batch.map(\.item))
                    outcome = .success(())
                } catch {
                    outcome = .failure(error)
                }
                for ticket in batch { ticket.outcome.withLock { $0 = outcome } }
                state.withLock { $0.isRunning = false }
                changed.broadcast()
            } else {
                changed.wait {
                    ticket.outcome.withLock { $0 != nil } || self.state.withLock { !$0.isRunning }
                }
            }
        }
    }

    /// All that waits, if nobody leads.
    private func takeLead() -> [Ticket]? {
        state.withLock { state in
            guard !state.isRunning, !state.waiting.isEmpty else { return nil }
            state.isRunning = true
            defer { state.waiting = [] }
            return state.waiting
        }
    }
}

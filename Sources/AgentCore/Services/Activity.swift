import ColdframeKit

/// Counts what is under way in one part of the agent, so that its end can refuse what comes later and wait for the rest.
@AgentActor
final class Activity {
    private var count = 0
    private var isClosed = false
    private var waiters: [CheckedContinuation<Void, Never>] = []

    nonisolated init() {}

    /// Throws when the agent is ending; otherwise `end` has to follow.
    func begin() throws(ColdframeError) {
        if isClosed { throw ColdframeError(.busy, "The agent is ending") }
        count += 1
    }

    func end() {
        count -= 1
        guard count == 0 else { return }
        let waiting = waiters
        waiters = []
        for waiter in waiting { waiter.resume() }
    }

    /// Refuses what comes from now on and suspends until nothing is under way.
    func close() async {
        isClosed = true
        while count > 0 { await withCheckedContinuation { waiters.append($0) } }
    }
}

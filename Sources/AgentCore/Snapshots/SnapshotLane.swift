import ColdframeKit

/// Lets one operation on snapshots at a time through, in the order in which they came.
///
/// Two saves with one tag, or a delete during a save, would each be right alone. The lane costs nothing: QEMU runs them
/// one by one as well.
@AgentActor
final class SnapshotLane {
    private var isTaken = false
    private var waiters: [CheckedContinuation<Void, Never>] = []

    nonisolated init() {}

    /// Runs `body` when its turn comes. `control` is a job that may be cancelled while it waits.
    func run<T: Sendable>(
        for control: (any JobControl)? = nil, _ body: () async throws -> T
    ) async throws -> T {
        while isTaken {
            control?.onCancel { [weak self] in self?.wake() }
            await withCheckedContinuation { waiters.append($0) }
            control?.onCancel(nil)
            try await control?.checkpoint()
        }
        isTaken = true
        defer {
            isTaken = false
            wake()
        }
        return try await body()
    }

    /// Everybody looks again; the first that does takes the lane.
    private func wake() {
        let waiting = waiters
        waiters = []
        for waiter in waiting { waiter.resume() }
    }
}

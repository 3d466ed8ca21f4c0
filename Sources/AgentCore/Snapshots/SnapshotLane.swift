import ColdframeKit

/// Lets one operation on snapshots at a time through, in the order in which they came.
///
/// Two saves with one tag, or a delete during a save, would each be right alone. The lane costs nothing: QEMU runs them
/// one by one as well.
@AgentActor
final class SnapshotLane {
    private var isTaken = false
    private var queue: [Ticket] = []
    /// The job that has the lane, or nil: nobody, or a command.
    private(set) var jobID: String?

    /// Those who wait for their turn.
    var waitingCount: Int { queue.count }

    private final class Ticket {
        let continuation: CheckedContinuation<Bool, Never>
        init(_ continuation: CheckedContinuation<Bool, Never>) { self.continuation = continuation }
    }

    nonisolated init() {}

    /// Runs `body` when its turn comes. `control` is a job that may be cancelled while it waits.
    func run<T: Sendable>(
        for control: (any JobControl)? = nil, _ body: () async throws -> T
    ) async throws -> T {
        while true {
            try await enter(control)
            guard let control, control.isInterrupted else { break }
            // Who is paused, or cancelled, must not keep it from others.
            leave()
            try await control.checkpoint()
        }
        jobID = control?.jobID
        defer { leave() }
        return try await body()
    }

    /// Takes the lane, or waits until it is handed over: nobody who comes later can be first.
    private func enter(_ control: (any JobControl)?) async throws {
        guard isTaken else {
            isTaken = true
            return
        }
        let isMine = await withCheckedContinuation { continuation in
            let ticket = Ticket(continuation)
            queue.append(ticket)
            // After the ticket is in the queue: a job that is cancelled already has its action called at once.
            control?.onCancel { [weak self] in self?.withdraw(ticket) }
        }
        control?.onCancel(nil)
        guard isMine else { throw ColdframeError(.cancelled, "Operation canceled") }
    }

    private func withdraw(_ ticket: Ticket) {
        guard let index = queue.firstIndex(where: { $0 === ticket }) else { return }
        queue.remove(at: index)
        ticket.continuation.resume(returning: false)
    }

    private func leave() {
        jobID = nil
        if queue.isEmpty { isTaken = false } else { queue.removeFirst().continuation.resume(returning: true) }
    }
}

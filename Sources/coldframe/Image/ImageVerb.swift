import ArgumentParser
import ColdframeKit
import LinuxSystem

/// A command that works with the graph, which lives on the agent's actor.
///
/// The command line itself stays synchronous: an asynchronous one has threads before its first line, and by them it would
/// die of a Ctrl-C that others only count (`InterruptFlag`).
protocol ImageVerb: ParsableCommand {
    @AgentActor func work() async throws
}

extension ImageVerb {
    func run() throws {
        let outcome = Outcome()
        // The main thread does nothing with the command until the task is over.
        nonisolated(unsafe) let command = self
        Task { @AgentActor in
            do {
                try await command.work()
                outcome.set(.success(()))
            } catch {
                outcome.set(.failure(error))
            }
        }
        try outcome.wait().get()
    }
}

/// Handed from the task to the main thread, once.
private final class Outcome: Sendable {
    private let result = Locked<Result<Void, any Error>?>(nil)
    private let changed = ConditionVariable()

    func set(_ value: Result<Void, any Error>) {
        result.withLock { $0 = value }
        changed.broadcast()
    }

    func wait() -> Result<Void, any Error> {
        changed.wait { result.withLock { $0 != nil } }
        return result.withLock { $0 } ?? .success(())
    }
}

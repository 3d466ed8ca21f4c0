import LinuxSystem
import Logging

/// A log for what a guest or an image can cause as often as it likes: a line in a second at most. Any thread.
public final class LimitedLog: Sendable {
    private let logger: Logger
    private let clock: any WaitClock
    private let state = Locked(State())

    private struct State {
        var nextNanoseconds: UInt64 = 0
        var silentCount = 0
    }

    public init(_ logger: Logger, clock: any WaitClock = HostClock()) {
        self.logger = logger
        self.clock = clock
    }

    /// Logs an error, with how many were not since the last line; or only counts it.
    public func error(_ text: @autoclosure () -> String) {
        let now = clock.nanoseconds
        let silentCount: Int? = state.withLock { state in
            guard now >= state.nextNanoseconds else {
                state.silentCount += 1
                return nil
            }
            defer { state = State(nextNanoseconds: now + 1_000_000_000) }
            return state.silentCount
        }
        guard let silentCount else { return }
        let text = text()
        logger.error("\(text)\(silentCount > 0 ? " (and \(silentCount) more before it that are not logged)" : "")")
    }
}

import LinuxSystem

/// Limits a job to so many bytes per second, in slices of a tenth of a second. Any thread.
final class RateLimiter: Sendable {
    private static let sliceNanoseconds: UInt64 = 100_000_000

    private struct State {
        var bytesPerSecond: UInt64 = 0
        var sliceStart: UInt64 = 0
        var sliceEnd: UInt64 = 0
        var dispatched: UInt64 = 0
    }
    private let state = Locked(State())
    private let now: @Sendable () -> UInt64

    init(now: @escaping @Sendable () -> UInt64 = { SystemClock.monotonicNanoseconds() }) {
        self.now = now
    }

    /// 0 for no limit.
    func setSpeed(_ bytesPerSecond: UInt64) {
        state.withLock { $0 = State(bytesPerSecond: bytesPerSecond) }
    }

    /// How long to wait after so many bytes more.
    func delayNanoseconds(after byteCount: UInt64) -> UInt64 {
        let now = now()
        return state.withLock { state in
            guard state.bytesPerSecond > 0 else { return 0 }
            let quota = max(state.bytesPerSecond / 10, 1)
            if state.sliceEnd < now {
                state.sliceStart = now
                state.sliceEnd = now + Self.sliceNanoseconds
                state.dispatched = 0
            }
            state.dispatched += byteCount
            guard state.dispatched >= quota else { return 0 }
            let (span, overflow) = (state.dispatched / quota).multipliedReportingOverflow(by: Self.sliceNanoseconds)
            state.sliceEnd = overflow ? .max / 2 : state.sliceStart + span
            return state.sliceEnd > now ? state.sliceEnd - now : 0
        }
    }
}

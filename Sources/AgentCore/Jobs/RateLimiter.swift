import LinuxSystem

/// Limits a job to so many bytes per second. Any thread.
///
/// The work is spread: who copies a tenth of a second's worth at once is in the guest's way for as long as that takes.
final class RateLimiter: Sendable {
    /// No longer than that is worked before there is a pause.
    private static let sliceNanoseconds: UInt64 = 2_000_000
    private static let sliceCountPerSecond: UInt64 = 500
    /// Time that was not used, by work that took longer than it might or by whatever came in between, is made up for up to this.
    private static let arrearsNanoseconds: UInt64 = 100_000_000

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
        let now = now()
        state.withLock { $0 = State(bytesPerSecond: bytesPerSecond, sliceStart: now, sliceEnd: now) }
    }

    /// How long to wait after so many bytes more.
    func delayNanoseconds(after byteCount: UInt64) -> UInt64 {
        let now = now()
        return state.withLock { state in
            guard state.bytesPerSecond > 0 else { return 0 }
            if state.sliceEnd < now {
                state.sliceStart = max(state.sliceEnd, now - min(now, Self.arrearsNanoseconds))
                state.sliceEnd = state.sliceStart + Self.sliceNanoseconds
                state.dispatched = 0
            }
            state.dispatched += byteCount
            guard state.dispatched >= state.bytesPerSecond / Self.sliceCountPerSecond else { return 0 }
            let nanoseconds = Double(state.dispatched) / Double(state.bytesPerSecond) * 1e9
            state.sliceEnd = state.sliceStart + UInt64(min(nanoseconds, Double(UInt64.max / 4)))
            return state.sliceEnd > now ? state.sliceEnd - now : 0
        }
    }
}

import LinuxSystem
import Synchronization

/// Time that passes only when a test says so. Any thread.
public final class SimulatedClock: WaitClock {
    private let now = Atomic<UInt64>(1_000_000_000)
    private let state = Locked(State())

    private struct State {
        var waits: [Int: (changed: ConditionVariable, endNanoseconds: UInt64)] = [:]
        var lastWait = 0
    }

    public init() {}

    public var nanoseconds: UInt64 { now.load(ordering: .acquiring) }

    /// Threads that wait for a time which has not come. One whose time has come does not count, though it may not have
    /// noticed it yet.
    public var waitingCount: Int {
        state.withLock { state in
            let now = nanoseconds
            return state.waits.values.count { $0.endNanoseconds > now }
        }
    }

    public func wait(on changed: ConditionVariable, nanoseconds duration: UInt64, until isReady: () -> Bool) {
        let (sum, overflow) = nanoseconds.addingReportingOverflow(duration)
        let end = overflow ? .max : sum
        let key = state.withLock { state in
            state.lastWait += 1
            state.waits[state.lastWait] = (changed, end)
            return state.lastWait
        }
        changed.wait { isReady() || nanoseconds >= end }
        state.withLock { $0.waits[key] = nil }
    }

    public func advance(nanoseconds duration: UInt64) {
        now.add(duration, ordering: .acquiringAndReleasing)
        for (changed, _) in state.withLock({ Array($0.waits.values) }) { changed.broadcast() }
    }
}

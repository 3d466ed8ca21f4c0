import LinuxSystem
import Synchronization

/// Time that passes only when a test says so. Any thread.
public final class SimulatedClock: WaitClock {
    private let now = Atomic<UInt64>(1_000_000_000)
    private let waiting = Locked<[ObjectIdentifier: (changed: ConditionVariable, count: Int)]>([:])

    public init() {}

    public var nanoseconds: UInt64 { now.load(ordering: .acquiring) }

    /// Threads that wait by the clock now.
    public var waitingCount: Int { waiting.withLock { $0.values.reduce(0) { $0 + $1.count } } }

    public func wait(on changed: ConditionVariable, nanoseconds duration: UInt64, until isReady: () -> Bool) {
        let (sum, overflow) = nanoseconds.addingReportingOverflow(duration)
        let end = overflow ? .max : sum
        let key = ObjectIdentifier(changed)
        waiting.withLock { $0[key, default: (changed, 0)].count += 1 }
        changed.wait { isReady() || nanoseconds >= end }
        waiting.withLock { waiting in
            waiting[key]?.count -= 1
            if waiting[key]?.count == 0 { waiting[key] = nil }
        }
    }

    public func advance(nanoseconds duration: UInt64) {
        now.add(duration, ordering: .acquiringAndReleasing)
        for (changed, _) in waiting.withLock({ Array($0.values) }) { changed.broadcast() }
    }
}

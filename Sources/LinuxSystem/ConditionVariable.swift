import CLinux

/// A place to wait until something becomes true (`pthread_cond_t` with a mutex of its own).
///
/// Whoever makes the condition true then calls `signal` or `broadcast`. Both take the mutex under which `wait` looks at
/// the condition: a waiter has either seen the change or is asleep and is woken, so no wake-up is lost. The condition
/// itself must be safe to read there (an atomic, or under its own lock), and must not use this object.
public final class ConditionVariable: @unchecked Sendable {
    // Unchecked: the pointer is constant, and what it points to is made for use by several threads.
    private let monitor = cf_monitor_create()

    public init() {}

    deinit { cf_monitor_destroy(monitor) }

    /// Blocks the thread until `isReady` returns true. It is called under the internal mutex, at least once.
    public func wait(_ isReady: () -> Bool) {
        cf_monitor_lock(monitor)
        defer { cf_monitor_unlock(monitor) }
        while !isReady() { cf_monitor_wait(monitor) }
    }

    /// The same for at most `milliseconds`. Returns whether it became true.
    public func waitFor(milliseconds: Int, _ isReady: () -> Bool) -> Bool {
        waitFor(nanoseconds: UInt64(clamping: milliseconds) &* 1_000_000, isReady)
    }

    /// The same for at most `nanoseconds`. Returns whether it became true.
    public func waitFor(nanoseconds: UInt64, _ isReady: () -> Bool) -> Bool {
        // A deadline that the kernel's clock cannot hold is as good as one in a century.
        let deadline = SystemClock.monotonicNanoseconds() &+ min(nanoseconds, 3_000_000_000_000_000_000)
        cf_monitor_lock(monitor)
        defer { cf_monitor_unlock(monitor) }
        while !isReady() {
            if !cf_monitor_wait_until(monitor, deadline) { return isReady() }
        }
        return true
    }

    /// Wakes one waiter.
    public func signal() {
        cf_monitor_lock(monitor)
        cf_monitor_signal(monitor)
        cf_monitor_unlock(monitor)
    }

    /// Wakes all waiters.
    public func broadcast() {
        cf_monitor_lock(monitor)
        cf_monitor_broadcast(monitor)
        cf_monitor_unlock(monitor)
    }
}

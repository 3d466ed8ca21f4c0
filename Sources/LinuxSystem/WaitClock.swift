/// A clock that threads wait by. Any thread.
///
/// Tests have one that stands still until they move it.
public protocol WaitClock: Sendable {
    /// Never goes back; its zero is arbitrary.
    var nanoseconds: UInt64 { get }
    /// Blocks the thread until `isReady` returns true, at most for the given time. Whoever makes it true signals `changed`.
    func wait(on changed: ConditionVariable, nanoseconds: UInt64, until isReady: () -> Bool)
}

/// The host's monotonic clock.
public struct HostClock: WaitClock {
    public init() {}

    public var nanoseconds: UInt64 { SystemClock.monotonicNanoseconds() }

    public func wait(on changed: ConditionVariable, nanoseconds: UInt64, until isReady: () -> Bool) {
        _ = changed.waitFor(nanoseconds: nanoseconds, isReady)
    }
}

import LinuxSystem

/// What asynchronous work came to, for a thread that waits for it.
final class Outcome<Value: Sendable>: Sendable {
    private let result = Locked<Result<Value, any Error>?>(nil)
    private let arrived = ConditionVariable()

    func set(_ value: Result<Value, any Error>) {
        result.withLock { $0 = value }
        arrived.broadcast()
    }

    func wait() -> Result<Value, any Error> {
        arrived.wait { self.result.withLock { $0 != nil } }
        return result.withLock { $0! }
    }
}

import LinuxSystem

/// A value behind a lock.
///
/// `Locked` demands that a closure proves its state disconnected from everything else, which
/// states made of raw memory and classes of their own cannot. Here the rule is by convention: what is reached through
/// the value is used under the lock only.
final class Guarded<Value: ~Copyable>: @unchecked Sendable {
    private let mutex = PlainMutex()
    /// Allocated once, freed with the object; only dereferenced under the lock.
    private let value: UnsafeMutablePointer<Value>

    init(_ value: consuming Value) {
        self.value = .allocate(capacity: 1)
        self.value.initialize(to: value)
    }

    deinit {
        value.deinitialize(count: 1)
        value.deallocate()
    }

    func withLock<Result, Failure: Error>(
        _ body: (inout Value) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        mutex.lock()
        defer { mutex.unlock() }
        return try body(&value.pointee)
    }
}

import Glibc

/// A `pthread_mutex_t` for code that cannot take a closure: lock and unlock in different functions, or around typed
/// throws. Elsewhere `Locked` is the better choice. Not recursive.
public final class PlainMutex: @unchecked Sendable {
    // Unchecked: the pointer is constant, and the mutex behind it is made for use by several threads.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>

    public init() {
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    @inline(__always)
    public func lock() { pthread_mutex_lock(mutex) }

    /// By the thread that locked it.
    @inline(__always)
    public func unlock() { pthread_mutex_unlock(mutex) }

    /// Locks it if nobody holds it.
    public func tryLock() -> Bool { pthread_mutex_trylock(mutex) == 0 }

    @inline(__always)
    public func withLock<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        lock()
        defer { unlock() }
        return try body()
    }
}

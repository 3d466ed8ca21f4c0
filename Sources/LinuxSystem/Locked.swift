import Synchronization

#if COLDFRAME_TSAN
    /// The same on a `pthread_mutex_t`, which ThreadSanitizer knows; it does not see the standard library's `Mutex` wait in
    /// the kernel, and takes what a contended one orders for a race. Only `tools/sanitize` builds this.
    public final class Locked<Value: ~Copyable>: @unchecked Sendable {
        private let mutex = PlainMutex()
        /// Allocated once, freed with the object; only dereferenced under the lock.
        private let value: UnsafeMutablePointer<Value>

        public init(_ value: consuming sending Value) {
            self.value = .allocate(capacity: 1)
            self.value.initialize(to: value)
        }

        deinit {
            value.deinitialize(count: 1)
            value.deallocate()
        }

        public func withLock<Result: ~Copyable, Failure: Error>(
            _ body: (inout sending Value) throws(Failure) -> sending Result
        ) throws(Failure) -> sending Result {
            mutex.lock()
            defer { mutex.unlock() }
            return try body(&value.pointee)
        }
    }
#else
    /// A value that is reached under its lock only: the standard library's `Mutex`, under a name of our own so that a build
    /// for ThreadSanitizer can put one in its place that the sanitizer understands.
    public typealias Locked<Value: ~Copyable> = Mutex<Value>
#endif

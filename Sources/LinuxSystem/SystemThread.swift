import CLinux
import Glibc
import Synchronization

/// Threads of our own (`pthread_create(3)`), for work that blocks.
public enum SystemThread {
    /// A started thread. Without `join` it ends by itself, unnoticed.
    public final class Handle: @unchecked Sendable {
        // Unchecked: the identifier is constant; `isJoined` is atomic.
        private let thread: pthread_t
        private let isJoined = Atomic<Bool>(false)

        fileprivate init(_ thread: pthread_t) { self.thread = thread }

        deinit {
            if !isJoined.load(ordering: .acquiring) { pthread_detach(thread) }
        }

        /// `pthread_join(3)`: blocks until the body has returned. Later calls do nothing. Not from the thread itself.
        public func join() {
            if !isJoined.exchange(true, ordering: .acquiringAndReleasing) { pthread_join(thread, nil) }
        }
    }

    /// Runs `body` on a new thread.
    /// - Parameters:
    ///   - name: as `top -H` shows it; cut to 15 bytes.
    ///   - stackByteCount: the system's default if nil.
    /// - Throws: EAGAIN if the system has no room for a thread.
    @discardableResult
    public static func start(
        name: String, stackByteCount: Int? = nil, _ body: @escaping @Sendable () -> Void
    ) throws(SystemError) -> Handle {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        if let stackByteCount { pthread_attr_setstacksize(&attributes, stackByteCount) }
        let start = Unmanaged.passRetained(ThreadStart(name: name, body: body))
        var thread = pthread_t()
        do {
            try SystemCall.check("pthread_create", name) {
                pthread_create(&thread, &attributes, runThread, start.toOpaque())
            }
        } catch {
            start.release()
            throw error
        }
        return Handle(thread)
    }

    /// Blocks the thread (`nanosleep(2)`).
    public static func sleep(milliseconds: Int) {
        guard milliseconds > 0 else { return }
        sleep(nanoseconds: UInt64(milliseconds) * 1_000_000)
    }

    /// Blocks the thread (`nanosleep(2)`); signals do not shorten it.
    public static func sleep(nanoseconds: UInt64) {
        guard nanoseconds > 0 else { return }
        var rest = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        while true {
            var left = timespec()
            if nanosleep(&rest, &left) == 0 || errno != EINTR { return }
            rest = left
        }
    }

    /// `gettid(2)`.
    public static var currentID: Int32 { cf_thread_id() }
}

private final class ThreadStart: Sendable {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
        self.name = name
        self.body = body
    }
}

private func runThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    // Balances the retain of `start`.
    let start = Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue()
    cf_set_thread_name(String(decoding: start.name.utf8.prefix(15), as: UTF8.self))
    start.body()
    return nil
}

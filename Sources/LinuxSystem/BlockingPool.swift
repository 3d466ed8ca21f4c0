import CLinux
import Glibc

/// Threads on which asynchronous code runs what blocks, so that the threads of the concurrency runtime never do.
///
/// Threads are made when needed, up to a bound, kept for a while and ended when idle. What comes when all are busy
/// waits its turn in order.
public final class BlockingPool: @unchecked Sendable {
    // Unchecked: the mutable state is touched under `monitor` only.
    public static let shared = BlockingPool(maximumThreadCount: 64)

    private let monitor = cf_monitor_create()
    private let maximumThreadCount: Int
    private let idleNanoseconds: UInt64
    private var queue: [@Sendable () -> Void] = []
    /// Entries of `queue` before this are taken; keeps taking from the front cheap.
    private var queueStart = 0
    private var threadCount = 0
    private var idleCount = 0

    public init(maximumThreadCount: Int, idleMilliseconds: Int = 10_000) {
        self.maximumThreadCount = max(1, maximumThreadCount)
        idleNanoseconds = UInt64(clamping: idleMilliseconds) &* 1_000_000
    }

    deinit { cf_monitor_destroy(monitor) }

    /// Threads there are now.
    public var currentThreadCount: Int {
        cf_monitor_lock(monitor)
        defer { cf_monitor_unlock(monitor) }
        return threadCount
    }

    /// Runs `body` on a thread of the pool and suspends until it has returned. It is not interrupted by the
    /// cancellation of the task.
    public func run<Value: Sendable, Failure: Error>(
        isolation: isolated (any Actor)? = #isolation,
        _ body: @escaping @Sendable () throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
            submit { continuation.resume(returning: Result(catching: body)) }
        }
        return try result.get()
    }

    /// Runs `work` on a thread of the pool, some time.
    public func submit(_ work: @escaping @Sendable () -> Void) { take(work, isOffer: false) }

    /// Runs `work` on a thread of the pool if one has nothing else to do, or can be made. False, with nothing done, otherwise:
    /// for what the caller would rather do himself than wait.
    public func offer(_ work: @escaping @Sendable () -> Void) -> Bool { take(work, isOffer: true) }

    @discardableResult
    private func take(_ work: @escaping @Sendable () -> Void, isOffer: Bool) -> Bool {
        cf_monitor_lock(monitor)
        if isOffer, queue.count - queueStart >= idleCount, threadCount >= maximumThreadCount {
            cf_monitor_unlock(monitor)
            return false
        }
        queue.append(work)
        let mustGrow = queue.count - queueStart > idleCount && threadCount < maximumThreadCount
        if mustGrow { threadCount += 1 }
        cf_monitor_unlock(monitor)
        // After the unlock: who is woken would only wait again, for the lock.
        cf_monitor_signal(monitor)
        if mustGrow { startThread() }
        return true
    }

    private func startThread() {
        do {
            try SystemThread.start(name: "cf-blocking") { self.work() }
        } catch {
            cf_monitor_lock(monitor)
            threadCount -= 1
            let isAlone = threadCount == 0
            cf_monitor_unlock(monitor)
            // Threads that exist take the work later. With none the work is done here: late is better than never.
            if isAlone { drainHere() }
        }
    }

    private func drainHere() {
        cf_monitor_lock(monitor)
        while let work = takeFirst() {
            cf_monitor_unlock(monitor)
            work()
            cf_monitor_lock(monitor)
        }
        cf_monitor_unlock(monitor)
    }

    private func work() {
        cf_monitor_lock(monitor)
        while true {
            if let work = takeFirst() {
                cf_monitor_unlock(monitor)
                work()
                cf_monitor_lock(monitor)
                continue
            }
            idleCount += 1
            let isInTime = cf_monitor_wait_until(monitor, SystemClock.monotonicNanoseconds() &+ idleNanoseconds)
            idleCount -= 1
            if !isInTime, queueStart == queue.count { break }
        }
        threadCount -= 1
        cf_monitor_unlock(monitor)
    }

    /// Under the monitor.
    private func takeFirst() -> (@Sendable () -> Void)? {
        guard queueStart < queue.count else { return nil }
        let work = queue[queueStart]
        queueStart += 1
        if queueStart == queue.count {
            queue.removeAll(keepingCapacity: true)
            queueStart = 0
        } else if queueStart >= 1024 {
            queue.removeFirst(queueStart)
            queueStart = 0
        }
        return work
    }
}

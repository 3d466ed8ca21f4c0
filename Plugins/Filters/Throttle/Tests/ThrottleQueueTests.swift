import ConformanceKit
import LinuxSystem
import QMPWire
import Synchronization
import Testing

@testable import ThrottleFilter

/// Threads at a queue whose time the test moves.
@Suite struct ThrottleQueueTests {
    private let clock = SimulatedClock()

    /// Requests that pass one after the other on a thread of their own.
    private final class Stream: Sendable {
        let passedCount = Atomic<Int>(0)
        private let threads: ThreadGroup

        init(_ queue: ThrottleQueue, _ member: ThrottleQueue.Member, count: Int, threads: ThreadGroup) throws {
            self.threads = threads
            try threads.start { [self] in
                for _ in 0..<count {
                    queue.pass(member, .write, byteCount: 1000)
                    passedCount.add(1, ordering: .relaxed)
                }
            }
        }

        var count: Int { passedCount.load(ordering: .relaxed) }
    }

    /// Threads that a test waits for.
    private final class ThreadGroup: Sendable {
        private let running = Atomic<Int>(0)
        private let changed = ConditionVariable()

        func start(_ body: @escaping @Sendable () -> Void) throws {
            running.add(1, ordering: .relaxed)
            try SystemThread.start(name: "throttle-test") { [self] in
                body()
                running.subtract(1, ordering: .releasing)
                changed.broadcast()
            }
        }

        func end() -> Bool {
            changed.waitFor(milliseconds: 60_000) { running.load(ordering: .acquiring) == 0 }
        }
    }

    /// Until as many threads sleep by the clock as there are directions with a queue, and nothing moves.
    private func settle(_ streams: [Stream], sleeping count: Int = 1) {
        var last = -1
        for _ in 0..<60_000 {
            let now = streams.reduce(0) { $0 + $1.count }
            if clock.waitingCount == count, now == last { return }
            last = now
            SystemThread.sleep(milliseconds: 1)
        }
        Issue.record("the queue does not settle")
    }

    @Test func membersGetTheSameShareWhateverTheyAskFor() throws {
        let queue = ThrottleQueue(try settings(["iops-total": 10]), clock: clock)
        let (busy, quiet) = (queue.join(), queue.join())
        let threads = ThreadGroup()
        let many = try (0..<4).map { _ in try Stream(queue, busy, count: 40, threads: threads) }
        let one = try Stream(queue, quiet, count: 40, threads: threads)
        for _ in 0..<60 {
            settle(many + [one])
            clock.advance(nanoseconds: 100_000_000)
        }
        settle(many + [one])
        let busyCount = many.reduce(0) { $0 + $1.count }
        #expect(abs(one.count + busyCount - 62) <= 2)
        #expect(abs(one.count - busyCount) <= 3)
        queue.set(ThrottleSettings())
        #expect(threads.end())
        queue.leave(busy)
        queue.leave(quiet)
        #expect(queue.memberCount == 0)
    }

    @Test func aReleaseLetsItsMemberPassAndNobodyElse() throws {
        let queue = ThrottleQueue(try settings(["bps-total": 1000]), clock: clock)
        let (drained, other) = (queue.join(), queue.join())
        let threads = ThreadGroup()
        let first = try Stream(queue, drained, count: 20, threads: threads)
        let second = try Stream(queue, other, count: 20, threads: threads)
        settle([first, second])
        let before = second.count
        queue.beginRelease(drained)
        queue.beginRelease(drained)
        queue.endRelease(drained)
        for _ in 0..<60_000 where first.count < 20 { SystemThread.sleep(milliseconds: 1) }
        #expect(first.count == 20)
        settle([first, second])
        #expect(second.count == before)
        queue.endRelease(drained)
        // What passed is counted: the other waits for it too.
        clock.advance(nanoseconds: 15_000_000_000)
        settle([first, second])
        #expect(second.count == before)
        queue.set(ThrottleSettings())
        #expect(threads.end())
    }

    @Test func otherLimitsTakeEffectOnThoseWhoWait() throws {
        let queue = ThrottleQueue(try settings(["bps-write": 1]), clock: clock)
        let member = queue.join()
        let threads = ThreadGroup()
        let stream = try Stream(queue, member, count: 3, threads: threads)
        settle([stream])
        #expect(stream.count == 1)
        queue.set(try settings(["bps-write": 1000]))
        settle([stream])
        #expect(stream.count == 2)
        clock.advance(nanoseconds: 900_000_001)
        #expect(threads.end())
        #expect(stream.count == 3)
    }

    @Test func readsDoNotWaitForWrites() throws {
        let queue = ThrottleQueue(try settings(["bps-write": 1]), clock: clock)
        let member = queue.join()
        let threads = ThreadGroup()
        let stream = try Stream(queue, member, count: 3, threads: threads)
        settle([stream])
        for _ in 0..<10 { queue.pass(member, .read, byteCount: 1 << 20) }
        queue.set(ThrottleSettings())
        #expect(threads.end())
    }
}

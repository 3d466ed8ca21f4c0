import LinuxSystem
import Synchronization
import Testing

private final class Counter: Sendable {
    let value = Atomic<Int>(0)
    let most = Atomic<Int>(0)
    func up() -> Int { value.add(1, ordering: .sequentiallyConsistent).newValue }
    func down() { value.subtract(1, ordering: .sequentiallyConsistent) }
    var now: Int { value.load(ordering: .sequentiallyConsistent) }
}

@Suite struct ThreadTests {
    @Test func joinWaitsForTheBody() throws {
        let counter = Counter()
        let thread = try SystemThread.start(name: "a name that is far too long") {
            SystemThread.sleep(milliseconds: 20)
            _ = counter.up()
        }
        thread.join()
        thread.join()
        #expect(counter.now == 1)
    }

    @Test func aMutexExcludes() throws {
        let mutex = PlainMutex()
        let counter = Counter()
        let clash = Counter()
        let threads = try (0..<4).map { _ in
            try SystemThread.start(name: "t") {
                for _ in 0..<2000 {
                    mutex.withLock {
                        if counter.up() != 1 { _ = clash.up() }
                        counter.down()
                    }
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(clash.now == 0)
        #expect(mutex.tryLock())
        #expect(!mutex.tryLock())
        mutex.unlock()
    }

    @Test func noWakeUpIsLost() throws {
        let condition = ConditionVariable()
        let counter = Counter()
        let other = try SystemThread.start(name: "pong") {
            for round in stride(from: 1, to: 4000, by: 2) {
                condition.wait { counter.now == round }
                _ = counter.up()
                condition.broadcast()
            }
        }
        for round in stride(from: 0, to: 4000, by: 2) {
            condition.wait { counter.now == round }
            _ = counter.up()
            condition.signal()
        }
        other.join()
        #expect(counter.now == 4000)
    }

    @Test func aTimedWaitEnds() {
        let condition = ConditionVariable()
        #expect(!condition.waitFor(milliseconds: 20) { false })
        #expect(condition.waitFor(milliseconds: 0) { true })
    }

    @Test func aTimedWaitIsWoken() throws {
        let condition = ConditionVariable()
        let counter = Counter()
        let thread = try SystemThread.start(name: "t") {
            _ = counter.up()
            condition.broadcast()
        }
        #expect(condition.waitFor(milliseconds: 10_000) { counter.now == 1 })
        thread.join()
    }
}

@Suite struct BlockingPoolTests {
    private struct Failure: Error, Equatable {}

    @Test func resultsComeBack() async {
        #expect(await BlockingPool.shared.run { 42 } == 42)
    }

    @Test func errorsKeepTheirType() async {
        await #expect(throws: Failure()) {
            try await BlockingPool.shared.run { () throws(Failure) -> Int in throw Failure() }
        }
    }

    @Test func threadsAreBounded() async {
        let pool = BlockingPool(maximumThreadCount: 3)
        let counter = Counter()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<20 {
                group.addTask {
                    await pool.run {
                        let inside = counter.up()
                        if inside > counter.most.load(ordering: .relaxed) {
                            counter.most.store(inside, ordering: .relaxed)
                        }
                        SystemThread.sleep(milliseconds: 5)
                        counter.down()
                    }
                }
            }
        }
        #expect(counter.most.load(ordering: .relaxed) <= 3)
        #expect(pool.currentThreadCount <= 3)
    }

    @Test func idleThreadsEnd() async {
        let pool = BlockingPool(maximumThreadCount: 4, idleMilliseconds: 30)
        await pool.run {}
        for _ in 0..<200 where pool.currentThreadCount > 0 { SystemThread.sleep(milliseconds: 10) }
        #expect(pool.currentThreadCount == 0)
        await pool.run {}
    }

    @Test func anOfferIsRefusedWhereNobodyIsFree() {
        let pool = BlockingPool(maximumThreadCount: 2)
        let gate = Atomic<Bool>(false)
        let opened = ConditionVariable()
        let counter = Counter()
        func offer() -> Bool {
            pool.offer {
                opened.wait { gate.load(ordering: .acquiring) }
                _ = counter.up()
            }
        }
        #expect([offer(), offer(), offer(), offer()] == [true, true, false, false])
        gate.store(true, ordering: .releasing)
        opened.broadcast()
        for _ in 0..<500 where counter.now < 2 { SystemThread.sleep(milliseconds: 10) }
        #expect(counter.now == 2)
        var isTaken = false
        for _ in 0..<500 where !isTaken {
            isTaken = offer()
            SystemThread.sleep(milliseconds: 10)
        }
        #expect(isTaken)
    }

    @Test func workIsDoneWithoutThreads() async {
        SystemCallFaults.inject(onCall: 1, errno: Errno.tryAgain, matching: ["pthread_create"])
        defer { SystemCallFaults.clear() }
        let counter = Counter()
        BlockingPool(maximumThreadCount: 1).submit { _ = counter.up() }
        #expect(counter.now == 1)
    }
}

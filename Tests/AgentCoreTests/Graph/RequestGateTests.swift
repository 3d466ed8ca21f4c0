import ColdframeKit
import LinuxSystem
import Synchronization
import Testing

/// Atomics cannot stand in an expectation themselves.
private func isSet(_ flag: borrowing Atomic<Bool>) -> Bool { flag.load(ordering: .sequentiallyConsistent) }

@Suite("Request gate")
struct RequestGateTests {
    @Test("A drain waits for the request inside, and holds back the next one until it ends")
    func drainHoldsBack() async throws {
        let gate = RequestGate()
        gate.enter()
        let drained = Atomic<Bool>(false)
        async let drain: Void = {
            await gate.beginDrain()
            drained.store(true, ordering: .sequentiallyConsistent)
        }()
        SystemThread.sleep(milliseconds: 20)
        #expect(isSet(drained) == false)
        gate.leave()
        await drain
        let entered = Atomic<Bool>(false)
        let worker = try SystemThread.start(name: "gate-test") {
            gate.enter()
            entered.store(true, ordering: .sequentiallyConsistent)
            gate.leave()
        }
        SystemThread.sleep(milliseconds: 20)
        #expect(isSet(entered) == false)
        gate.endDrain()
        worker.join()
        #expect(isSet(entered) == true)
        #expect(gate.arrivals == 2)
    }

    @Test("A drain that reaches its deadline leaves the gate open")
    func deadline() async {
        let gate = RequestGate()
        gate.enter()
        let isDrained = await gate.beginDrain(
            deadlineNanoseconds: SystemClock.monotonicNanoseconds() + 20_000_000)
        #expect(!isDrained)
        gate.leave()
        gate.enter()
        gate.leave()
        #expect(gate.inFlightCount == 0)
    }

    @Test("A drain with a deadline always comes back, whenever the request inside leaves", .timeLimit(.minutes(1)))
    func deadlineAndLeave() async {
        for microseconds in stride(from: 0, through: 2_000, by: 10) {
            let gate = RequestGate()
            gate.enter()
            let deadline = SystemClock.monotonicNanoseconds() + 1_000_000
            let leaving = Task.detached {
                try? await Task.sleep(nanoseconds: UInt64(microseconds) * 1_000)
                gate.leave()
            }
            let isDrained = await gate.beginDrain(deadlineNanoseconds: deadline)
            if isDrained { gate.endDrain() }
            #expect(!gate.isClosed)
            await leaving.value
        }
    }

    @Test("Drains nest")
    func nesting() async throws {
        let gate = RequestGate()
        await gate.beginDrain()
        await gate.beginDrain()
        gate.endDrain()
        let entered = Atomic<Bool>(false)
        let worker = try SystemThread.start(name: "gate-test") {
            gate.enter()
            entered.store(true, ordering: .sequentiallyConsistent)
            gate.leave()
        }
        SystemThread.sleep(milliseconds: 20)
        #expect(isSet(entered) == false)
        gate.endDrain()
        worker.join()
        #expect(gate.inFlightCount == 0)
    }
}

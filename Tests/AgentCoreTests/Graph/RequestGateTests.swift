import ColdframeKit
import LinuxSystem
import Synchronization
import Testing

@Suite("Request gate")
struct RequestGateTests {
    @Test("A drain waits for the request inside, and holds back the next one until it ends")
    func drainHoldsBack() async {
        let gate = RequestGate()
        gate.enter()
        let drained = Atomic<Bool>(false)
        async let drain: Void = {
            await gate.beginDrain()
            drained.store(true, ordering: .sequentiallyConsistent)
        }()
        SystemThread.sleep(milliseconds: 20)
        #expect(!drained.load(ordering: .sequentiallyConsistent))
        gate.leave()
        await drain
        let entered = Atomic<Bool>(false)
        let worker = SystemThread.start(name: "gate-test") {
            gate.enter()
            entered.store(true, ordering: .sequentiallyConsistent)
            gate.leave()
        }
        SystemThread.sleep(milliseconds: 20)
        #expect(!entered.load(ordering: .sequentiallyConsistent))
        gate.endDrain()
        worker.join()
        #expect(entered.load(ordering: .sequentiallyConsistent))
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

    @Test("Drains nest")
    func nesting() async {
        let gate = RequestGate()
        await gate.beginDrain()
        await gate.beginDrain()
        gate.endDrain()
        let entered = Atomic<Bool>(false)
        let worker = SystemThread.start(name: "gate-test") {
            gate.enter()
            entered.store(true, ordering: .sequentiallyConsistent)
            gate.leave()
        }
        SystemThread.sleep(milliseconds: 20)
        #expect(!entered.load(ordering: .sequentiallyConsistent))
        gate.endDrain()
        worker.join()
        #expect(gate.inFlightCount == 0)
    }
}

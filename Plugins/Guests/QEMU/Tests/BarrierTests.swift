import LinuxSystem
import Synchronization
import Testing

@testable import QEMUGuest

@Suite struct BarrierTests {
    @Test func withoutACaptureAFlushReturnsAtOnce() throws {
        try BarrierDriver().flush()
    }

    @Test func anArmedBarrierHoldsOneFlushUntilItIsReleased() throws {
        let barrier = BarrierDriver()
        let held = EventFlag()
        let returned = EventFlag()
        barrier.arm { held.raise() }
        let thread = try SystemThread.start(name: "flush") {
            try? barrier.flush()
            returned.raise()
        }
        #expect(held.wait(milliseconds: 1000))
        try barrier.flush()  // A second one is not held.
        #expect(!returned.wait(milliseconds: 50))
        #expect(barrier.release())
        thread.join()
        #expect(returned.wait(milliseconds: 0))
        try barrier.flush()
    }

    @Test func aHoldEndsByItselfAndSaysSo() throws {
        let barrier = BarrierDriver()
        barrier.arm {}
        let begin = SystemClock.monotonicNanoseconds()
        try barrier.flush()
        let milliseconds = (SystemClock.monotonicNanoseconds() - begin) / 1_000_000
        #expect(milliseconds >= UInt64(BarrierDriver.holdLimitMilliseconds) - 5)
        #expect(!barrier.release())
        #expect(barrier.release())
    }

    @Test func aReleaseBeforeTheFlushDisarms() throws {
        let barrier = BarrierDriver()
        let held = EventFlag()
        barrier.arm { held.raise() }
        #expect(barrier.release())
        try barrier.flush()
        #expect(!held.wait(milliseconds: 0))
    }

    private final class EventFlag: Sendable {
        private let isRaised = Atomic(false)
        private let changed = ConditionVariable()
        func raise() {
            isRaised.store(true, ordering: .releasing)
            changed.broadcast()
        }
        func wait(milliseconds: Int) -> Bool {
            changed.waitFor(milliseconds: milliseconds) { isRaised.load(ordering: .acquiring) }
        }
    }
}

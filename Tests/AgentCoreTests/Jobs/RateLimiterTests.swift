import Synchronization
import Testing

@testable import AgentCore

@Suite("Rate limiter")
struct RateLimiterTests {
    @Test("Over a while as many bytes pass as the limit allows", arguments: [1, 3, 200, 10_000], [65536, 1 << 20])
    func rate(_ mebibytesPerSecond: UInt64, _ stepByteCount: UInt64) {
        let clock = Atomic<UInt64>(1_000_000_000)
        let limiter = RateLimiter { clock.load(ordering: .relaxed) }
        limiter.setSpeed(mebibytesPerSecond << 20)
        let start = clock.load(ordering: .relaxed)
        var longestWork: UInt64 = 0
        var workStart = start
        for _ in 0..<(10 * mebibytesPerSecond << 20) / stepByteCount {
            // Ten times as fast as it may be.
            clock.add(stepByteCount * 95 / mebibytesPerSecond, ordering: .relaxed)
            let delay = limiter.delayNanoseconds(after: stepByteCount)
            guard delay > 0 else { continue }
            longestWork = max(longestWork, clock.load(ordering: .relaxed) - workStart)
            clock.add(delay, ordering: .relaxed)
            workStart = clock.load(ordering: .relaxed)
        }
        let seconds = Double(clock.load(ordering: .relaxed) - start) / 1e9
        #expect(seconds > 9.5 && seconds < 10.5)
        // A step, and what may be done in a slice at that pace.
        #expect(longestWork <= stepByteCount * 95 / mebibytesPerSecond + 2_000_000)
    }

    @Test("Without a limit nobody waits, and a change of the limit begins anew")
    func changes() {
        let limiter = RateLimiter { 5 }
        #expect(limiter.delayNanoseconds(after: .max / 2) == 0)
        limiter.setSpeed(1)
        #expect(limiter.delayNanoseconds(after: 1 << 30) > 1_000_000_000)
        limiter.setSpeed(0)
        #expect(limiter.delayNanoseconds(after: 1 << 30) == 0)
    }
}

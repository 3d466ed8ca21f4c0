import Synchronization
import Testing

@testable import AgentCore

@Suite("Rate limiter")
struct RateLimiterTests {
    @Test("Over a while as many bytes pass as the limit allows")
    func rate() {
        let clock = Atomic<UInt64>(1_000_000_000)
        let limiter = RateLimiter { clock.load(ordering: .relaxed) }
        limiter.setSpeed(1 << 20)
        let start = clock.load(ordering: .relaxed)
        for _ in 0..<160 {
            clock.add(limiter.delayNanoseconds(after: 65536), ordering: .relaxed)
        }
        // 10 MiB at 1 MiB/s.
        let seconds = Double(clock.load(ordering: .relaxed) - start) / 1e9
        #expect(seconds > 9 && seconds < 11)
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

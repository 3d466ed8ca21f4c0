import Glibc

/// Clocks of the kernel.
public enum SystemClock {
    /// `clock_gettime(2)` CLOCK_MONOTONIC: never goes back; its zero is arbitrary.
    public static func monotonicNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    /// `clock_gettime(2)` CLOCK_REALTIME: since 1970, UTC.
    public static func realtime() -> (seconds: Int64, nanoseconds: UInt32) {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return (Int64(time.tv_sec), UInt32(time.tv_nsec))
    }
}

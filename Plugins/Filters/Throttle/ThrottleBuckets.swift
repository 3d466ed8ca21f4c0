/// What has passed lately, measured against the limits: one leaky bucket for each rate. A value; its owner has the lock.
///
/// A request fills the buckets of its kind and may pass while none of them is over its brim; they leak at their rates. So what
/// passes is one request late in being counted, and a request of any size passes at some time.
struct ThrottleBuckets {
    enum Direction: Int, CaseIterable, Sendable {
        case read, write

        fileprivate var kinds: [ThrottleSettings.Kind] {
            switch self {
            case .read: [.bytesTotal, .bytesRead, .operationsTotal, .operationsRead]
            case .write: [.bytesTotal, .bytesWritten, .operationsTotal, .operationsWritten]
            }
        }
    }

    private struct Bucket {
        let rate: ThrottleSettings.Rate
        var level = 0.0
        /// Leaks at the rate of the burst; counts only where a burst may last for longer than a second.
        var burstLevel = 0.0

        private var limitsBurst: Bool { rate.burstSeconds > 1 }

        mutating func fill(_ units: Double) {
            level += units
            if limitsBurst { burstLevel += units }
        }

        mutating func leak(seconds: Double) {
            level = max(level - Double(rate.average) * seconds, 0)
            if limitsBurst { burstLevel = max(burstLevel - Double(rate.burst) * seconds, 0) }
        }

        /// Until it is not over its brim.
        var waitSeconds: Double {
            guard rate.average > 0 else { return 0 }
            // Without a burst a tenth of a second's worth still passes at once: otherwise every second request would wait.
            let brim = rate.burst > 0 ? Double(rate.burst) * Double(rate.burstSeconds) : Double(rate.average) / 10
            if level > brim { return (level - brim) / Double(rate.average) }
            let burstBrim = Double(rate.burst) / 10
            if limitsBurst, burstLevel > burstBrim { return (burstLevel - burstBrim) / Double(rate.burst) }
            return 0
        }
    }

    private var buckets: [Bucket]
    private let operationByteCount: UInt64
    private var lastLeak: UInt64
    private static let kinds = Direction.allCases.map { $0.kinds.map(\.rawValue) }

    /// All buckets empty.
    init(_ settings: ThrottleSettings, nanoseconds now: UInt64) {
        buckets = ThrottleSettings.Kind.allCases.map { Bucket(rate: settings[$0]) }
        operationByteCount = settings.operationByteCount
        lastLeak = now
    }

    /// How long the next request has to wait; 0 if it may pass.
    mutating func waitNanoseconds(_ direction: Direction, nanoseconds now: UInt64) -> UInt64 {
        leak(now)
        var seconds = 0.0
        for index in Self.kinds[direction.rawValue] { seconds = max(seconds, buckets[index].waitSeconds) }
        return seconds > 0 ? UInt64(min(seconds * 1e9, 1e18)) + 1 : 0
    }

    private mutating func leak(_ now: UInt64) {
        guard now > lastLeak else { return }
        let seconds = Double(now - lastLeak) / 1e9
        lastLeak = now
        for index in buckets.indices { buckets[index].leak(seconds: seconds) }
    }

    /// A request passes.
    mutating func account(_ direction: Direction, byteCount: UInt64) {
        let isLarge = operationByteCount > 0 && byteCount > operationByteCount
        let operations = isLarge ? Double(byteCount) / Double(operationByteCount) : 1
        let kinds = Self.kinds[direction.rawValue]
        buckets[kinds[0]].fill(Double(byteCount))
        buckets[kinds[1]].fill(Double(byteCount))
        buckets[kinds[2]].fill(operations)
        buckets[kinds[3]].fill(operations)
    }
}

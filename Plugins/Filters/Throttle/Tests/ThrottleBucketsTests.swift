import QAPI
import QMPWire
import Testing

@testable import ThrottleFilter

func settings(_ limits: JSONObject) throws -> ThrottleSettings {
    var settings = ThrottleSettings()
    try settings.apply(limits)
    try settings.check()
    return settings
}

@Suite struct ThrottleBucketsTests {
    private static let second: UInt64 = 1_000_000_000

    /// What passes in so many seconds if one request comes after the other: bytes and requests.
    private func passed(
        _ limits: JSONObject, seconds: UInt64, byteCount: UInt64, _ direction: ThrottleBuckets.Direction = .write
    ) throws -> (byteCount: UInt64, requestCount: Int) {
        var now: UInt64 = 5
        var buckets = ThrottleBuckets(try settings(limits), nanoseconds: now)
        var passed: (byteCount: UInt64, requestCount: Int) = (0, 0)
        while true {
            now += buckets.waitNanoseconds(direction, nanoseconds: now)
            if now > seconds * Self.second || passed.requestCount == 1_000_000 { return passed }
            buckets.account(direction, byteCount: byteCount)
            passed.byteCount += byteCount
            passed.requestCount += 1
        }
    }

    @Test func overALongTimeTheAveragePasses() throws {
        let bytes = try passed(["bps-total": 1_000_000], seconds: 100, byteCount: 4096).byteCount
        #expect(abs(Double(bytes) / 100e6 - 1) < 0.01)
        let requests = try passed(["iops-write": 50], seconds: 100, byteCount: 4096).requestCount
        #expect(abs(requests - 5000) < 20)
    }

    @Test func aTenthOfASecondPassesAtOnce() throws {
        var buckets = ThrottleBuckets(try settings(["iops-total": 100]), nanoseconds: 0)
        var count = 0
        while buckets.waitNanoseconds(.read, nanoseconds: 0) == 0 {
            buckets.account(.read, byteCount: 512)
            count += 1
        }
        // A bucket that is just full lets one more in.
        #expect(count == 11)
        #expect(buckets.waitNanoseconds(.read, nanoseconds: 0) == 10_000_001)
    }

    @Test func aBurstPassesAtItsOwnRateForAsLongAsItMay() throws {
        let limits: JSONObject = ["bps-total": 1_000_000, "bps-total-max": 5_000_000, "bps-total-max-length": 10]
        // The bucket holds 50 MB and leaks 1 MB/s: at 5 MB/s it is full after 12.5 s.
        let burst = try passed(limits, seconds: 10, byteCount: 50_000).byteCount
        #expect(abs(Double(burst) / 50e6 - 1) < 0.05)
        let all = try passed(limits, seconds: 112, byteCount: 50_000).byteCount
        #expect(abs(Double(all) / 162e6 - 1) < 0.05)
    }

    @Test func directionsHaveLimitsOfTheirOwn() throws {
        var buckets = ThrottleBuckets(try settings(["bps-read": 1000]), nanoseconds: 0)
        buckets.account(.read, byteCount: 1_000_000)
        #expect(buckets.waitNanoseconds(.read, nanoseconds: 0) > 0)
        #expect(buckets.waitNanoseconds(.write, nanoseconds: 0) == 0)
    }

    @Test func totalsCountBothDirections() throws {
        var buckets = ThrottleBuckets(try settings(["bps-total": 1000]), nanoseconds: 0)
        buckets.account(.read, byteCount: 1_000_000)
        #expect(buckets.waitNanoseconds(.write, nanoseconds: 0) > 0)
    }

    @Test func largeRequestsCountAsSeveral() throws {
        let limits: JSONObject = ["iops-total": 100, "iops-size": 4096]
        #expect(abs(try passed(limits, seconds: 100, byteCount: 16384).requestCount - 2500) < 20)
        #expect(abs(try passed(limits, seconds: 100, byteCount: 512).requestCount - 10_000) < 20)
    }

    @Test(
        arguments: [
            (
                ["bps-total": 1, "bps-read": 1],
                "bps/iops/max total values and read/write values cannot be used at the same time"
            ),
            (["iops-size": 1], "iops size requires an iops value to be set"),
            (["bps-total": -1], "bps/iops/max values must be within [0, 1000000000000000]"),
            (["bps-total-max-length": 0], "the burst length cannot be 0"),
            (["bps-total": 5, "bps-total-max-length": 2], "burst length set without burst rate"),
            (["bps-total-max": 5], "bps_max/iops_max require corresponding bps/iops values"),
            (["bps-total": 5, "bps-total-max": 4], "bps_max/iops_max cannot be lower than bps/iops"),
            (
                ["iops-read-max-length": 4_294_967_296],
                "iops-read-max-length value must be in the range [0, 4294967295]"
            ),
        ] as [(JSONObject, String)])
    func contradictionsAreRefused(_ limits: JSONObject, text: String) {
        #expect(throws: (any Error).self) { try settings(limits) }
        do { _ = try settings(limits) } catch { #expect("\(error)" == text) }
    }
}

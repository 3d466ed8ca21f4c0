import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import NullProtocol

/// What only these drivers have: they keep nothing, so the tests of other protocols do not apply.
@Suite struct NullDriverTests {
    private func disk(latencyNanoseconds: UInt64 = 0, isKnownZero: Bool = false) -> NullDriver {
        NullDriver(
            driverName: "null-co", byteCount: 4096, latencyNanoseconds: latencyNanoseconds, isKnownZero: isKnownZero,
            isReadOnly: false, displayFilename: "null-co://")
    }

    @Test(arguments: [false, true]) func whatIsWrittenIsDropped(isKnownZero: Bool) throws {
        let disk = disk(isKnownZero: isKnownZero)
        try disk.writeBytes([1, 2, 3], at: 7)
        // `readBytes` begins with a buffer that is not zero: nothing of it may be left.
        #expect(try disk.readBytes(0, 4096) == [UInt8](repeating: 0, count: 4096))
    }

    @Test func zerosAreTiedToTheOption() throws {
        #expect(try disk().extents(at: 5, byteCount: 7, limit: 1) == [Extent(offset: 5, byteCount: 7, kind: .opaque)])
        #expect(
            try disk(isKnownZero: true).extents(at: 5, byteCount: 7, limit: 1)
                == [Extent(offset: 5, byteCount: 7, kind: .zero(allocated: false))])
    }

    @Test func eachRequestTakesItsLatency() throws {
        let disk = disk(latencyNanoseconds: 3_000_000)
        let start = SystemClock.monotonicNanoseconds()
        _ = try disk.readBytes(0, 512)
        try disk.writeBytes([1], at: 0)
        try disk.writeZeroes(at: 0, byteCount: 512, flags: [])
        try disk.flush()
        #expect(SystemClock.monotonicNanoseconds() - start >= 12_000_000)
    }

    @Test func fastZeroingIsRefused() throws {
        let error = #expect(throws: ColdframeError.self) {
            try self.disk().writeZeroes(at: 0, byteCount: 512, flags: .noFallback)
        }
        #expect(error?.errno == Errno.notSupported)
    }
}

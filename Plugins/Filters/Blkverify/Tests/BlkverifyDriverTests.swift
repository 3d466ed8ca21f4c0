import ColdframeKit
import ConformanceKit
import LinuxSystem
import Logging
import QAPI
import Synchronization
import Testing

@testable import BlkverifyFilter

/// What only this filter does; what every filter must do is tested by Tests/Conformance, without a word here.
struct BlkverifyDriverTests {
    private static let byteCount = 65536 + 512
    private let test = MemoryFile()
    private let raw = MemoryFile()
    private let lines = LineCollector()

    private func filter(
        test first: (any BlockDriver)? = nil, raw second: (any BlockDriver)? = nil, isReadOnly: Bool = false
    ) -> BlkverifyDriver {
        for file in [test, raw] where file.bytes.isEmpty {
            file.replace(with: [UInt8](repeating: 7, count: Self.byteCount))
        }
        return BlkverifyDriver(
            name: "v", test: BlockNode(name: "t", driver: first ?? test),
            raw: BlockNode(name: "r", driver: second ?? raw), isReadOnly: isReadOnly, log: LimitedLog(lines.logger))
    }

    private func failure(_ body: () throws -> Void) -> ColdframeError? {
        do { try body() } catch { return ColdframeError(wrapping: error) }
        return nil
    }

    // MARK: Differences

    @Test(arguments: [0, 511, 512, 65535, 65536 + 511]) func aDifferentByteIsNamed(at place: Int) throws {
        let filter = filter()
        var bytes = raw.bytes
        bytes[place] = 8
        raw.replace(with: bytes)
        let error = try #require(failure { _ = try filter.readBytes(0, Self.byteCount) })
        #expect(error.errno == Errno.io)
        #expect(
            error.message == "blkverify 'v': read of \(Self.byteCount) bytes at 0 (sector 0): the contents differ from "
                + "byte \(place) (sector \(place / 512)) on")
        #expect(lines.all == [error.message])
        // The rest is as it was, and what is written anew is equal again.
        if place > 0 { #expect(try filter.readBytes(0, place).allSatisfy { $0 == 7 }) }
        try filter.writeBytes([9], at: UInt64(place))
        #expect(try filter.readBytes(UInt64(place), 1) == [9])
    }

    @Test func aDifferenceFarIntoALargeReadIsFound() throws {
        test.replace(with: [UInt8](repeating: 7, count: 1 << 20))
        var bytes = test.bytes
        bytes[700_000] = 1
        raw.replace(with: bytes)
        let error = failure { _ = try filter().readBytes(100, (1 << 20) - 100) }
        #expect(error?.message.contains("from byte 700000 (sector 1367) on") == true)
    }

    @Test(arguments: ["test", "raw"]) func aRequestThatFailsOnOneOnlyIsADifference(failing: String) throws {
        let faulty = FaultyDriver(failing == "test" ? test : raw)
        let filter = failing == "test" ? filter(test: faulty) : filter(raw: faulty)
        for (operation, body) in [
            ("write", { try filter.writeBytes([1], at: 512) }),
            ("write", { try filter.writeZeroes(at: 0, byteCount: 512, flags: []) }),
            ("flush", { try filter.flush() }),
        ] as [(String, () throws -> Void)] {
            faulty.fail(call: 0)
            let error = try #require(failure(body))
            #expect(error.errno == Errno.io && error.message.hasPrefix("blkverify 'v': \(operation)"))
            #expect(error.message.contains(failing == "test" ? "'raw' with success" : "'test' ends with success"))
        }
        // The other has it: they differ where the write was, and only there.
        #expect(failure { _ = try filter.readBytes(512, 1) }?.errno == Errno.io)
        #expect(try filter.readBytes(1024, 1024).allSatisfy { $0 == 7 })
    }

    @Test func anErrorOfBothIsTheirs() throws {
        let (first, second) = (FaultyDriver(test), FaultyDriver(raw))
        let filter = filter(test: first, raw: second)
        for faulty in [first, second] { faulty.fail(call: 0) }
        #expect(failure { try filter.writeBytes([1], at: 0) }?.message == "write was told to fail")
        #expect(lines.all == [])
        #expect(try filter.readBytes(0, 512).allSatisfy { $0 == 7 })
    }

    @Test func theLogIsNotFlooded() throws {
        let filter = filter()
        raw.replace(with: [UInt8](repeating: 8, count: Self.byteCount))
        for _ in 0..<1000 { _ = failure { _ = try filter.readBytes(0, 512) } }
        #expect((1...3).contains(lines.all.count))
    }

    // MARK: Threads

    /// Writers and readers of the same sectors, with disks that take different times: without reservations the reads would differ.
    @Test func concurrentWritesAreNoDifferences() throws {
        let filter = filter(test: hesitant(test, every: 3), raw: hesitant(raw, every: 5))
        let failures = Locked<[String]>([])
        let threads = try (0..<6).map { number in
            try SystemThread.start(name: "verify") {
                do {
                    for round in 0..<150 {
                        let offset = UInt64((round * 7 + number) % 8 * 512)
                        if number % 2 == 0 {
                            try filter.writeBytes([UInt8](repeating: UInt8(round), count: 4096), at: offset)
                        } else {
                            _ = try filter.readBytes(offset, 4096)
                        }
                    }
                } catch { failures.withLock { $0.append("\(error)") } }
            }
        }
        for thread in threads { thread.join() }
        #expect(failures.withLock { $0 } == [])
        #expect(test.bytes == raw.bytes)
    }

    /// Waits a little before each so-manieth request.
    private func hesitant(_ file: MemoryFile, every count: UInt64) -> HookedDriver {
        let requests = Atomic<UInt64>(0)
        return HookedDriver(file) { _, _ in
            if requests.add(1, ordering: .relaxed).newValue % count == 0 { SystemThread.sleep(nanoseconds: 50_000) }
        }
    }

    // MARK: What it tells of itself

    @Test func onlyWhatBothCallZeroIsZero() throws {
        let filter = filter(test: HookedDriver(test, zeroes: 0..<4096), raw: HookedDriver(raw, zeroes: 1024..<8192))
        let extents = try filter.extents(at: 0, byteCount: 8192, limit: 10)
        #expect(extents.map { [$0.offset, $0.byteCount] } == [[0, 1024], [1024, 3072], [4096, 4096]])
        #expect(extents.map(\.kind) == [.opaque, .zero(allocated: true), .opaque])
    }

    @Test func whatBothCannotPromiseIsRefused() throws {
        let filter = filter()
        #expect(
            failure { try filter.writeZeroes(at: 0, byteCount: 512, flags: .noFallback) }?.errno == Errno.notSupported)
        try filter.discard(at: 0, byteCount: 512)
        #expect(try filter.readBytes(0, 512).allSatisfy { $0 == 7 })
        #expect(filter.displayFilename == "blkverify:memory::memory:")
    }

    @Test func bothGrow() throws {
        let filter = filter()
        try filter.grow(toByteCount: 1 << 17)
        #expect(filter.byteCount == 1 << 17 && raw.byteCount == 1 << 17)
        #expect(try filter.readBytes(0, 1 << 17).count == 1 << 17)
    }

    @Test func aRawNodeThatHasBecomeSmallerIsAnError() throws {
        let filter = filter()
        try raw.resize(toByteCount: 4096)
        #expect(failure { _ = try filter.readBytes(0, 8192) }?.message.contains("has only 4096 bytes") == true)
        #expect(try filter.readBytes(0, 4096).count == 4096)
    }
}

/// Keeps what is logged.
final class LineCollector: LogHandler {
    private let lines = Locked<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    var logger: Logger { Logger(label: "test") { _ in self } }

    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    var logLevel: Logger.Level {
        get { .trace }
        set {}
    }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }

    func log(event: LogEvent) { lines.withLock { $0.append("\(event.message)") } }
}

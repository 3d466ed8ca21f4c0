import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import BlklogwritesFilter

/// What only this filter does; what every filter must do is tested by Tests/Conformance, without a word here.
@Suite struct BlklogwritesTests {
    private static let size = 65536 + 100
    private let file = MemoryFile()
    private let log = MemoryFile()
    private let before = (0..<Self.size).map { UInt8(truncatingIfNeeded: $0 &* 7) }

    init() { file.replace(with: before) }

    private func filter(
        sector: UInt32 = 512, interval: UInt64 = 4096, log other: (any BlockDriver)? = nil
    ) throws -> BlklogwritesDriver {
        BlklogwritesDriver(
            BlockNode(name: "file", driver: file),
            log: WriteLog(
                BlockNode(name: "log", driver: other ?? log), at: try .init(sectorByteCount: sector),
                superblockInterval: interval))
    }

    /// The entries that the superblock tells of, with what follows each.
    private func entries() throws -> [(entry: LogEntry, data: [UInt8])] {
        let bytes = log.bytes
        let superblock = try LogSuperblock(Array(bytes[..<LogSuperblock.byteCount]))
        let size = Int(superblock.sectorByteCount)
        var found: [(LogEntry, [UInt8])] = []
        var position = size
        for _ in 0..<superblock.entryCount {
            let entry = LogEntry(Array(bytes[position..<position + LogEntry.byteCount]))
            position += size
            let count = Int(entry.dataSectorCount) * size
            found.append((entry, Array(bytes[position..<position + count])))
            position += count
        }
        return found
    }

    /// The disk that the log makes of the one that it began with. Discarded sectors are zeros.
    private func replayed() throws -> [UInt8] {
        let size = try Int(LogSuperblock(Array(log.bytes[..<LogSuperblock.byteCount])).sectorByteCount)
        var disk = before
        disk.pad(toMultipleOf: size)
        for (entry, data) in try entries() {
            let start = Int(entry.sector) * size
            let bytes =
                entry.flags.contains(.discard) ? [UInt8](repeating: 0, count: Int(entry.sectorCount) * size) : data
            disk.replaceSubrange(start..<start + bytes.count, with: bytes)
        }
        return Array(disk[..<Self.size])
    }

    @Test(arguments: [32, 512, 4096] as [UInt32]) func theLogMakesTheDisk(sector: UInt32) throws {
        var generator = SeededGenerator(seed: UInt64(sector))
        let filter = try filter(sector: sector)
        for round in 0..<300 {
            let start = Int.random(in: 0..<Self.size, using: &generator)
            let count = Int.random(in: 1...min(20_000, Self.size - start), using: &generator)
            switch Int.random(in: 0..<8, using: &generator) {
            case 0: try filter.discard(at: UInt64(start), byteCount: UInt64(count))
            case 1, 2: try filter.writeZeroes(at: UInt64(start), byteCount: UInt64(count), flags: [])
            case 3: try filter.flush()
            default:
                try filter.writeBytes(
                    [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: count), at: UInt64(start))
            }
        }
        try filter.close()
        #expect(try replayed() == file.bytes)
    }

    @Test func entriesSayWhatWasDone() throws {
        let filter = try filter()
        try filter.writeBytes([UInt8](repeating: 1, count: 1024), at: 512)
        try filter.writeBytes([2], at: 5)
        try filter.writeZeroes(at: 1000, byteCount: 2000, flags: .mayUnmap)
        try filter.discard(at: 100, byteCount: 5000)
        try filter.discard(at: 100, byteCount: 500)
        try [UInt8](repeating: 3, count: 512).withBytes { (buffer) throws(ColdframeError) in
            try filter.write(buffer, at: 0, flags: .forceUnitAccess)
        }
        try filter.flush()
        // There is nothing to be flushed any more.
        try filter.flush()
        let expected: [LogEntry] = [
            .init(sector: 1, sectorCount: 2), .init(sector: 0, sectorCount: 1),
            .init(sector: 1, sectorCount: 1), .init(sector: 2, sectorCount: 3), .init(sector: 5, sectorCount: 1),
            .init(sector: 1, sectorCount: 8, flags: .discard),
            .init(sector: 0, sectorCount: 1, flags: .forceUnitAccess), .init(flags: .flush),
        ]
        #expect(try entries().map(\.entry) == expected)
    }

    @Test func theSuperblockFollowsNowAndThen() throws {
        let filter = try filter(interval: 3)
        for round in 1...7 {
            try filter.writeBytes([1], at: 0)
            if round >= 3 { #expect(try entries().count == round / 3 * 3) }
        }
        try filter.flush()
        #expect(try entries().count == 8)
    }

    @Test func aLogIsContinued() throws {
        let first = try filter(sector: 4096)
        try first.writeBytes([9], at: 10_000)
        try first.discard(at: 0, byteCount: 8192)
        try first.close()
        let place = try WriteLog.end(of: BlockNode(name: "log", driver: log))
        #expect(place.entryCount == 3 && place.sector == 5 && place.sectorByteCount == 4096)
        let second = BlklogwritesDriver(
            BlockNode(name: "file", driver: file),
            log: WriteLog(BlockNode(name: "log", driver: log), at: place, superblockInterval: 1))
        try second.writeBytes([8], at: 20_000)
        #expect(try entries().count == 4)
        #expect(try replayed() == file.bytes)
    }

    @Test func anEmptyLogBegins() throws {
        let place = try WriteLog.end(of: BlockNode(name: "log", driver: log))
        #expect(place.entryCount == 0 && place.sector == 1 && place.sectorByteCount == 512)
    }

    @Test(
        arguments: [
            (0, 1, "Invalid log superblock magic"), (8, 2, "Unsupported log version 2"),
            (24, 31, "Invalid log sector size 31"), (24, 1 << 24, "Invalid log sector size 16777216"),
            (16, 1 << 62, "Failed to read log entry 2: Input/output error"),
            (512 + 16, 16, "Invalid flags 0x10 in log entry 0"),
            (512 + 8, .max, "Failed to read log entry 0: its data lies outside the log: Input/output error"),
        ] as [(Int, UInt64, String)])
    func aLogThatIsNoneIsRefused(place: Int, value: UInt64, words: String) throws {
        let first = try filter()
        try first.writeBytes([9], at: 0)
        try first.close()
        var bytes = log.bytes
        if place == 24 {
            bytes.storeLittleEndian(UInt32(value), at: place)
        } else {
            bytes.storeLittleEndian(value, at: place)
        }
        log.replace(with: bytes)
        do {
            _ = try WriteLog.end(of: BlockNode(name: "log", driver: log))
            Issue.record("taken")
        } catch { #expect("\(error)" == words) }
    }

    @Test func aShortLogIsRefused() throws {
        log.replace(with: [UInt8](repeating: 0, count: 20))
        do {
            _ = try WriteLog.end(of: BlockNode(name: "log", driver: log))
            Issue.record("taken")
        } catch { #expect("\(error)" == "Could not read log superblock: Input/output error") }
    }

    /// Whatever fails in the log fails the request, and what the superblock tells of stays true.
    @Test func aFailureOfTheLogIsTold() throws {
        for call in 0..<40 {
            log.replace(with: [])
            file.replace(with: before)
            let faulty = FaultyDriver(log)
            let filter = try filter(interval: 2, log: faulty)
            faulty.fail(call: call)
            var failures = 0
            for round in 0..<6 {
                do { try filter.writeBytes([UInt8(round + 1)], at: UInt64(round * 512)) } catch { failures += 1 }
            }
            do { try filter.flush() } catch { failures += 1 }
            let calls = faulty.callCount
            faulty.heal()
            #expect(failures == (call < calls ? 1 : 0))
            try filter.flush()
            try filter.writeBytes([77], at: 60_000)
            try filter.flush()
            #expect(try entries().allSatisfy { $0.entry.flags.isSubset(of: .all) && $0.entry.sector < 129 })
            let last = try entries().suffix(2).map(\.entry)
            #expect(last == [.init(sector: 117, sectorCount: 1), .init(flags: .flush)])
        }
    }
}

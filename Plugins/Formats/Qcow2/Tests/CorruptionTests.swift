import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// What an open image does when it meets damage.
@Suite struct CorruptionTests {
    private final class Reports: Sendable {
        let list = Locked<[ImageCorruption]>([])
    }

    private func open(_ path: String, _ reports: Reports) throws -> Qcow2Driver {
        var options = Qcow2Driver.Options()
        options.reportCorruption = { corruption in reports.list.withLock { $0.append(corruption) } }
        return try Qcow2Driver(try Qcow2Image.read(try fileNode(path)), backing: nil, options: options)
    }

    private func patch(_ path: String, _ bytes: [UInt8], at offset: UInt64) throws {
        let file = try PlainFile(path: path)
        try file.writeBytes(bytes, at: offset)
        try file.close()
    }

    private func word(_ value: UInt64) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

    /// Written 64 KiB at 0 and at 64 KiB: L1 at 3, L2 table behind it.
    private func make(_ fixture: ImageFixture) throws -> (path: String, l2: UInt64, l1: UInt64) {
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20)
        let disk = try openImage(path)
        try disk.writeBytes(pattern(131_072, 1), at: 0)
        let (l1, offset) = disk.map.state.withLock { ($0.l1, $0.l1Offset) }
        try disk.close()
        return (path, l1[0] & EntryBits.offsetMask, offset.rawValue)
    }

    @Test func anEntryThatPointsToATableIsNotWrittenThrough() throws {
        let fixture = try ImageFixture()
        let (path, l2, l1) = try make(fixture)
        for target in [l2, l1, 0x10000, 0x20000] {
            try patch(path, word(target | EntryBits.copied), at: l2)
            try patch(path, word(0), at: 72)
            let reports = Reports()
            let disk = try open(path, reports)
            let error = #expect(throws: ColdframeError.self) { try disk.writeBytes([1], at: 5) }
            #expect(error?.message.contains("Preventing invalid write") == true, "\(error?.message ?? "")")
            #expect(reports.list.withLock { $0.map(\.isFatal) } == [true])
            // Reads go on, changes are refused.
            #expect(disk.isReadOnly)
            #expect(try disk.readBytes(65536, 65536) == Array(pattern(131_072, 1)[65536...]))
            #expect(throws: ColdframeError.self) { try disk.writeBytes([1], at: 65536) }
            #expect(throws: ColdframeError.self) { try disk.createSnapshot(request("no")) }
            try disk.close()
            let image = try Qcow2Image.read(try fileNode(path))
            #expect(image.header.incompatible.contains(.corrupt))
            #expect(throws: ColdframeError.self) { try openImage(path) }
            _ = try openImage(path, isReadOnly: true)
        }
    }

    @Test func refcountsThatCallATableFreeDoNotGetItOverwritten() throws {
        let fixture = try ImageFixture()
        let (path, l2, _) = try make(fixture)
        // The L2 table's refcount is 0.
        try patch(path, [0, 0], at: 0x20000 + (l2 >> 16) * 2)
        let reports = Reports()
        let disk = try open(path, reports)
        #expect(throws: ColdframeError.self) {
            for index in 2..<16 { try disk.writeBytes(pattern(65536, 2), at: UInt64(index) << 16) }
        }
        #expect(reports.list.withLock { $0.map(\.isFatal) } == [true])
        #expect(try disk.readBytes(0, 131_072) == pattern(131_072, 1))
        try disk.close()
    }

    @Test func aReadThatMeetsDamageIsReportedOnce() throws {
        let fixture = try ImageFixture()
        let (path, l2, _) = try make(fixture)
        try patch(path, word(0x12345 << 9 | EntryBits.copied), at: l2)
        let reports = Reports()
        let disk = try open(path, reports)
        for _ in 0..<3 { #expect(throws: ColdframeError.self) { try disk.readBytes(0, 512) } }
        #expect(reports.list.withLock { $0.map(\.isFatal) } == [false])
        #expect(!disk.isReadOnly)
        #expect(try disk.readBytes(65536, 65536) == Array(pattern(131_072, 1)[65536...]))
        try disk.close()
        #expect(try !Qcow2Image.read(try fileNode(path)).header.incompatible.contains(.corrupt))
    }

    @Test func aDamagedBackingFileDoesNotMarkItsOverlay() throws {
        let fixture = try ImageFixture()
        let (base, l2, _) = try make(fixture)
        try patch(base, word(0x12345 << 9 | EntryBits.copied), at: l2)
        let path = fixture.path("top")
        try createImage(path, byteCount: 1 << 20, backingFilename: "a")
        let backing = BlockNode(name: "base", driver: try openImage(base, isReadOnly: true))
        let disk = try openImage(path, backing: backing)
        // Copies what is around it from the backing file.
        let error = #expect(throws: ColdframeError.self) { try disk.writeBytes([1], at: 5) }
        #expect(error?.code == .io)
        #expect(!disk.isReadOnly)
        try disk.writeBytes(pattern(65536, 1), at: 0)
        #expect(try disk.readBytes(0, 65536) == pattern(65536, 1))
        try disk.close()
        #expect(try !Qcow2Image.read(try fileNode(path)).header.incompatible.contains(.corrupt))
    }
}

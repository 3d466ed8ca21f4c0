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

    /// An L1 entry that points to a refcount block, which a write would change as an L2 table.
    @Test func aTableThatIsTwoThingsIsNotChangedInPlace() throws {
        let fixture = try ImageFixture()
        let (path, _, l1) = try make(fixture)
        try patch(path, word(0x20000 | EntryBits.copied), at: l1)
        let before = try Files.readAll(path, limit: 1 << 24)[0x20000..<0x30000]
        let reports = Reports()
        let disk = try open(path, reports)
        let error = #expect(throws: ColdframeError.self) { try disk.writeBytes([1], at: 1 << 19) }
        #expect(error?.message.contains("overlaps with refcount block") == true, "\(error?.message ?? "")")
        #expect(throws: ColdframeError.self) { try disk.discard(at: 1 << 19, byteCount: 65536) }
        #expect(reports.list.withLock { $0.map(\.isFatal) } == [true])
        try disk.close()
        #expect(try Files.readAll(path, limit: 1 << 24)[0x20000..<0x30000] == before)
    }

    /// Tables of snapshots are known in mode `all` only, as in QEMU.
    @Test(arguments: [MetadataKinds.cached, .all])
    func tablesOfSnapshotsAreGuardedIfAskedFor(checks: MetadataKinds) throws {
        let fixture = try ImageFixture()
        let (path, l2, _) = try make(fixture)
        var disk = try openImage(path)
        _ = try disk.createSnapshot(request("one"))
        try disk.writeBytes(pattern(65536, 2), at: 0)
        let now = disk.map.state.withLock { $0.l1[0] } & EntryBits.offsetMask
        #expect(now != l2, "the snapshot has the old table")
        try disk.close()
        // The disk's second cluster is the snapshot's table, by a lie.
        try patch(path, word(l2 | EntryBits.copied), at: now + 8)
        var options = Qcow2Driver.Options()
        options.overlapChecks = checks
        disk = try Qcow2Driver(try Qcow2Image.read(try fileNode(path)), backing: nil, options: options)
        if checks == .all {
            let error = #expect(throws: ColdframeError.self) { try disk.writeBytes([1], at: 65536) }
            #expect(error?.message.contains("inactive L2 table") == true, "\(error?.message ?? "")")
        } else {
            try disk.writeBytes([1], at: 65536)
        }
        try disk.close()
    }

    /// With every check on, nothing that is right is refused.
    @Test func allChecksLetSoundImagesBe() throws {
        let fixture = try ImageFixture()
        let (path, _, _) = try make(fixture)
        var options = Qcow2Driver.Options()
        options.overlapChecks = .all
        let disk = try Qcow2Driver(try Qcow2Image.read(try fileNode(path)), backing: nil, options: options)
        for round in UInt64(1)..<6 {
            let info = try disk.createSnapshot(request("t\(round)"))
            try disk.writeBytes(pattern(100_000, round), at: round * 50_000)
            if round % 2 == 0 { try disk.revert(toSnapshot: info.id) }
            if round > 2 { try disk.deleteSnapshot(id: "\(round - 2)") }
            try disk.writeBytes(pattern(200_000, round), at: 0)
            try disk.discard(at: 65536, byteCount: 65536)
            try disk.flush()
        }
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test(arguments: ["delete", "revert", "attach"])
    func snapshotOperationsThatMeetDamageMarkTheImage(operation: String) throws {
        let fixture = try ImageFixture()
        let (path, l2, _) = try make(fixture)
        let sound = try openImage(path)
        let info = try sound.createSnapshot(request("one"))
        try sound.writeBytes(pattern(65536, 2), at: 0)
        let place = sound.operations.entries[0].l1Offset.rawValue
        try sound.close()
        // The snapshot's L1 table points between two clusters; its L1 table lies outside for an attach.
        try patch(path, word(l2 + 512), at: place)
        if operation == "attach" {
            let table = try Qcow2Image.read(try fileNode(path)).header.snapshotTableOffset.rawValue
            try patch(path, word(0x1234), at: table)
        }
        let reports = Reports()
        let disk = try open(path, reports)
        let error = #expect(throws: ColdframeError.self) {
            switch operation {
            case "delete": try disk.deleteSnapshot(id: info.id)
            case "revert": try disk.revert(toSnapshot: info.id)
            default:
                let writer = try disk.beginVMState()
                defer { try? writer.abandon() }
                try pattern(1000, 1).withUnsafeBytes { try writer.append($0) }
                _ = try writer.attach(toSnapshot: info.id, annotation: [], guestClockNanoseconds: 0)
            }
        }
        #expect(error?.code == .corrupt)
        #expect(reports.list.withLock { $0.map(\.isFatal) } == [true])
        #expect(disk.isReadOnly)
        #expect(try disk.readBytes(0, 65536) == pattern(65536, 2))
        try disk.close()
        #expect(try Qcow2Image.read(try fileNode(path)).header.incompatible.contains(.corrupt))
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

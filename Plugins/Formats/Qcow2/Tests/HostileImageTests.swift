import ColdframeKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Images with bad fields: an error that says what is wrong, or whatever content, but no crash and no hang.
@Suite struct HostileImageTests {
    /// An image with a few clusters and a snapshot.
    private func image(_ fixture: ImageFixture) throws -> [UInt8] {
        let path = fixture.path("good")
        try createImage(path, byteCount: 4 << 20, clusterByteCount: 4096)
        let disk = try openImage(path)
        try disk.writeBytes(pattern(100_000, 1), at: 5000)
        let writer = try disk.beginVMState()
        _ = try disk.createSnapshot(request("one", annotation: [1, 2, 3]))
        try pattern(10_000, 2).withUnsafeBytes { try writer.append($0) }
        _ = try writer.attach(toSnapshot: "1", annotation: [1], guestClockNanoseconds: 0)
        try disk.writeBytes(pattern(50_000, 3), at: 60_000)
        try disk.close()
        return try Files.readAll(path, limit: 1 << 28)
    }

    private func open(_ fixture: ImageFixture, _ bytes: [UInt8], isReadOnly: Bool = true) throws -> Qcow2Driver {
        let path = fixture.path("bad")
        let file = try Descriptor.open(path, [.writeOnly, .create, .truncate])
        try file.writeAll(bytes)
        file.close()
        return try openImage(path, isReadOnly: isReadOnly)
    }

    private func expectRefused(
        _ text: String, isReadOnly: Bool = true, sourceLocation: SourceLocation = #_sourceLocation,
        _ change: (inout [UInt8]) -> Void
    ) throws {
        let fixture = try ImageFixture()
        var bytes = try image(fixture)
        change(&bytes)
        let error = #expect(throws: ColdframeError.self, sourceLocation: sourceLocation) {
            _ = try open(fixture, bytes, isReadOnly: isReadOnly)
        }
        #expect(error?.message.contains(text) ?? false, "\(error?.message ?? "")", sourceLocation: sourceLocation)
    }

    @Test func notQcow2() throws { try expectRefused("Image is not in qcow2 format") { $0[0] = 0 } }
    @Test func version4() throws { try expectRefused("Unsupported qcow2 version 4") { $0[7] = 4 } }
    @Test func clusterSize() throws { try expectRefused("Unsupported cluster size: 2^22") { $0[23] = 22 } }
    @Test func refcountWidth() throws { try expectRefused("may not exceed 64 bits") { $0[99] = 7 } }
    @Test func shortHeader() throws { try expectRefused("qcow2 header too short") { $0[103] = 80 } }
    @Test func luks() throws { try expectRefused("LUKS") { $0[35] = 2 } }
    @Test func externalData() throws { try expectRefused("'data-file' is required") { $0[79] |= 4 } }
    @Test func unknownCompression() throws {
        try expectRefused("unknown compression type: 2") {
            $0[79] |= 8
            $0[104] = 2
        }
    }
    @Test func unknownFeature() throws {
        try expectRefused("Unsupported qcow2 feature(s): Unknown incompatible feature: 80") { $0[79] |= 0x80 }
    }
    @Test func corruptIsReadOnly() throws {
        try expectRefused("qcow2: Image is corrupt; cannot be opened read/write", isReadOnly: false) { $0[79] |= 2 }
    }
    @Test func dirtyAndNotMendable() throws {
        try expectRefused("Could not repair dirty image", isReadOnly: false) {
            $0[79] |= 1
            $0.storeBigEndian(UInt64(1 << 40), at: 40)
        }
    }
    @Test func refcountTableOutside() throws {
        try expectRefused("lies outside the image file") { $0.storeBigEndian(UInt64(1 << 40), at: 48) }
    }
    @Test func refcountTableUnaligned() throws {
        try expectRefused("Reference count table offset invalid") { $0.storeBigEndian(UInt64(4097), at: 48) }
    }
    @Test func refcountTableMissing() throws {
        try expectRefused("does not contain a reference count table") { $0.storeBigEndian(UInt32(0), at: 56) }
    }
    @Test func refcountTableTooLarge() throws {
        try expectRefused("Reference count table too large") { $0.storeBigEndian(UInt32.max, at: 56) }
    }
    @Test func l1TooLarge() throws {
        try expectRefused("Active L1 table too large") { $0.storeBigEndian(UInt32.max, at: 36) }
    }
    @Test func l1TooSmall() throws {
        try expectRefused("L1 table is too small") { $0.storeBigEndian(UInt64(1 << 40), at: 24) }
    }
    @Test func snapshotTableTooLarge() throws {
        try expectRefused("Snapshot table too large") { $0.storeBigEndian(UInt32.max, at: 60) }
    }
    @Test func truncated() throws { try expectRefused("outside the image file") { $0.removeLast($0.count - 8192) } }
    @Test func empty() throws { try expectRefused("Image is not in qcow2 format") { $0 = [] } }

    @Test func theNameTableNamesAnUnknownFeature() throws {
        let fixture = try ImageFixture()
        var bytes = try image(fixture)
        // The first extension is the table; its first entry becomes bit 7.
        bytes[112 + 8 + 1] = 7
        bytes[79] |= 0x80
        let error = #expect(throws: ColdframeError.self) { _ = try open(fixture, bytes) }
        #expect(error?.message == "Unsupported qcow2 feature(s): dirty bit")
    }

    /// Random changes of the bytes that matter, then everything that a user could do.
    @Test func randomDamageNeverCrashes() throws {
        let runs = ProcessControl.environment("COLDFRAME_PROPERTY_RUNS").flatMap { Int($0) }.map { $0 * 20 } ?? 300
        let seed =
            ProcessControl.environment("COLDFRAME_PROPERTY_SEED").flatMap { UInt64($0) }
            ?? SystemClock.monotonicNanoseconds()
        print("qcow2 damage test: \(runs) runs from seed \(seed)")
        let fixture = try ImageFixture()
        let good = try image(fixture)
        for run in 0..<UInt64(runs) {
            var generator = SeededGenerator(seed: seed &+ run)
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &generator) { damage(&bytes, &generator) }
            try? exercise(try open(fixture, bytes, isReadOnly: Bool.random(using: &generator)))
        }
    }

    private func damage(_ bytes: inout [UInt8], _ generator: inout SeededGenerator) {
        let area = Int.random(in: 0..<3, using: &generator)
        let offset =
            switch area {
            case 0: Int.random(in: 4..<600, using: &generator)
            // A word of some table: clusters hold their entries from the start.
            case 1:
                Int.random(in: 0..<bytes.count / 4096, using: &generator) * 4096 + Int.random(
                    in: 0..<32, using: &generator) * 8
            default: Int.random(in: 0..<bytes.count / 8, using: &generator) * 8
            }
        guard offset + 8 <= bytes.count else { return }
        switch Int.random(in: 0..<4, using: &generator) {
        case 0: bytes.storeBigEndian(generator.next(), at: offset)
        case 1: bytes[offset] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        case 2: bytes.storeBigEndian(UInt64.max, at: offset)
        default:
            let near = UInt64.random(in: 0..<UInt64(bytes.count) * 2, using: &generator) & ~4095
            bytes.storeBigEndian(near | (generator.next() & (0b11 << 62 | 1)), at: offset)
        }
    }

    private func exercise(_ disk: Qcow2Driver) throws {
        let size = Int(min(disk.byteCount, 8 << 20))
        _ = try? disk.readBytes(0, size)
        _ = try? disk.extents(at: 0, byteCount: disk.byteCount, limit: 50)
        _ = try? disk.information()
        for info in disk.snapshots.prefix(4) {
            if let view = try? disk.openSnapshot(id: info.id) {
                _ = try? view.readBytes(0, Int(min(view.byteCount, 1 << 20)))
            }
            if let reader = try? disk.openVMState(ofSnapshot: info.id) {
                var bytes = [UInt8](repeating: 0, count: Int(min(reader.byteCount, 1 << 20)))
                try? bytes.withUnsafeMutableBytes { try reader.read(into: $0, at: 0) }
            }
        }
        guard !disk.isReadOnly else { return }
        if size > 100_000 {
            try? disk.writeBytes(pattern(50_000, 4), at: 33_333)
            try? disk.writeZeroes(at: 0, byteCount: 40_000, flags: .mayUnmap)
            try? disk.discard(at: 50_000, byteCount: 40_000)
        }
        _ = try? disk.createSnapshot(request("more"))
        for info in disk.snapshots.prefix(4) { try? disk.revert(toSnapshot: info.id) }
        for info in disk.snapshots.prefix(4) { try? disk.deleteSnapshot(id: info.id) }
        try? disk.close()
    }
}

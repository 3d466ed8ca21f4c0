import ColdframeKit
import LinuxSystem
import QAPI
import Testing

@testable import Qcow2Format

/// The caches stay within what they were given, and give back what nobody needs.
@Suite struct CacheTests {
    /// 512 MiB with clusters of 4 KiB: 1 MiB of L2 tables, all of them used.
    private func image(_ fixture: ImageFixture) throws -> String {
        let path = fixture.path("a")
        try fixture.run(
            "qemu-img",
            ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata,cluster_size=4k", path, "512M"])
        return path
    }

    private func readEverywhere(_ disk: Qcow2Driver) throws {
        for offset in stride(from: UInt64(0), to: disk.byteCount, by: 1 << 20) { _ = try disk.readBytes(offset, 512) }
    }

    @Test(arguments: [4096, 64 << 10, 512 << 10, 4 << 20])
    func neitherCacheOutgrowsItsLimit(byteLimit: Int) throws {
        let fixture = try ImageFixture()
        var options = Qcow2Driver.Options()
        options.l2CacheByteLimit = byteLimit
        options.refcountCacheByteLimit = byteLimit
        let disk = try Qcow2Driver(
            try Qcow2Image.read(try fileNode(try image(fixture))), backing: nil, options: options)
        try readEverywhere(disk)
        for offset in stride(from: UInt64(0), to: disk.byteCount, by: 16 << 20) {
            try disk.discard(at: offset, byteCount: 8192)
            try disk.writeBytes([1], at: offset)
        }
        try disk.flush()
        // The least that a cache holds: eight slices, four blocks.
        #expect(disk.cachedMetadataByteCount <= max(byteLimit, 8 * 4096) + max(byteLimit, 4 * 4096))
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }

    @Test func whatIsNotUsedIsDropped() throws {
        let fixture = try ImageFixture()
        let disk = try openImage(try image(fixture))
        try disk.writeBytes(pattern(10_000, 1), at: 5000)
        try readEverywhere(disk)
        let full = disk.cachedMetadataByteCount
        disk.dropUnusedMetadata()
        #expect(disk.cachedMetadataByteCount == full, "all of it was looked at since")
        _ = try disk.readBytes(0, 512)
        disk.dropUnusedMetadata()
        #expect(disk.cachedMetadataByteCount < full / 4)
        // What was dropped is read again.
        #expect(try disk.readBytes(5000, 10_000) == pattern(10_000, 1))
        try readEverywhere(disk)
        try disk.writeBytes(pattern(10_000, 2), at: 300 << 20)
        #expect(try disk.readBytes(300 << 20, 10_000) == pattern(10_000, 2))
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }

    @Test func overlapChecksAreChosenAsInQEMU() {
        #expect(Qcow2Factory.overlapChecks(nil) == .cached)
        #expect(Qcow2Factory.overlapChecks(.mode(.none)) == [])
        #expect(Qcow2Factory.overlapChecks(.mode(.constant)).contains(.snapshotTable))
        #expect(!Qcow2Factory.overlapChecks(.mode(.constant)).contains(.activeL2))
        #expect(Qcow2Factory.overlapChecks(.mode(.all)).contains(.inactiveL2))
        let flags = Qcow2OverlapCheckFlags(template: .constant, activeL2: true, snapshotTable: false)
        #expect(
            Qcow2Factory.overlapChecks(.flags(flags))
                == MetadataKinds.constant.union(.activeL2).subtracting(.snapshotTable))
    }
}

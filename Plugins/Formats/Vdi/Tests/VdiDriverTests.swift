import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import VdiFormat

/// Images that qemu-img made are read, and what is written here is an image to it.
@Suite struct VdiDriverTests {
    @Test(arguments: ["", "static=on"]) func bothTypesAreReadAndWrittenAsQEMUDoes(options: String) throws {
        let folder = try ToolFolder()
        let disk = ToolFolder.mixedDisk(byteCount: 5 << 20, seed: 3)
        let path = try #require(try folder.image(of: disk, format: "vdi", options: options))
        var driver = try openImage(path)
        #expect(try driver.readBytes(0, disk.count) == disk)
        #expect(driver.clusterByteCount == 1 << 20)
        driver = try openImage(path, isReadOnly: false)
        var expected = disk
        let bytes = SeededGenerator.bytes(2_500_000, seed: 4)
        try driver.writeBytes(bytes, at: 1_234_567)
        expected.replaceSubrange(1_234_567..<1_234_567 + bytes.count, with: bytes)
        try driver.close()
        try folder.require("qemu-img", "check", "-f", "vdi", path)
        #expect(try folder.disk(of: path, format: "vdi") == expected)
    }

    /// Without a close: other programs must not give a block out that is in use.
    @Test func anImageThatWasNotClosedIsWrittenOnByQEMU() throws {
        let folder = try ToolFolder()
        let path = try #require(try folder.image(of: [UInt8](repeating: 0, count: 8 << 20), format: "vdi"))
        let driver = try openImage(path, isReadOnly: false)
        let bytes = SeededGenerator.bytes(1 << 20, seed: 1)
        try driver.writeBytes(bytes, at: 2 << 20)
        try folder.require("qemu-io", "-f", "vdi", "-c", "write -P 7 5M 1M", path)
        var expected = [UInt8](repeating: 0, count: 8 << 20)
        expected.replaceSubrange(2 << 20..<3 << 20, with: bytes)
        expected.replaceSubrange(5 << 20..<6 << 20, with: [UInt8](repeating: 7, count: 1 << 20))
        #expect(try openImage(path).readBytes(0, expected.count) == expected)
    }

    @Test func blocksThatFollowOneAnotherAreOneExtent() throws {
        let image = try SubjectImage(.vdi, byteCount: 16 * 4096)
        let driver = try image.open()
        try driver.writeBytes(SeededGenerator.bytes(3 * 4096, seed: 1), at: 4 * 4096)
        try driver.writeBytes([1], at: 4096)
        let extents = try driver.extents(at: 0, byteCount: driver.byteCount, limit: 100)
        #expect(extents.map(\.offset) == [0, 4096, 8192, 4 * 4096, 7 * 4096])
        guard case .data(_, 1024) = extents[3].kind else {
            Issue.record("\(extents[3])")
            return
        }
    }

    @Test func blocksThatWereGivenBackAreZeros() throws {
        let image = try SubjectImage(.vdi, byteCount: 4 * 4096, storage: .memory)
        let driver = try image.open()
        try driver.writeBytes(SeededGenerator.bytes(4 * 4096, seed: 1), at: 0)
        try driver.close()
        let node = damagedImage(try image.contents()["file"]!, at: 512 + 4, [0xFE, 0xFF, 0xFF, 0xFF])
        let again = try VdiDriver(VdiImage(node), isReadOnly: false)
        #expect(try again.readBytes(4096, 4096) == [UInt8](repeating: 0, count: 4096))
        // The block of the file that is free is the next to be given out, and shows nothing of what was in it.
        try again.writeBytes([5], at: 5000)
        #expect(try again.readBytes(4096, 4096).enumerated().allSatisfy { $0.element == ($0.offset == 904 ? 5 : 0) })
        #expect(node.byteCount == 1024 + 4 * 4096)
    }
}

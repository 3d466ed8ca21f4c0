import ColdframeKit
import ConformanceKit
import Testing

@testable import VpcFormat

/// Images that qemu-img made are read as it reads them.
@Suite struct VpcDriverTests {
    private func open(_ path: String) throws -> VpcDriver {
        VpcDriver(try VpcImage(BlockNode(name: "file", driver: try PlainFile(path: path, isReadOnly: true))))
    }

    @Test(
        arguments: [
            "subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size=on", "subformat=fixed,force_size=on",
        ])
    func bothTypesAreReadAsQEMUReadsThem(options: String) throws {
        let folder = try ToolFolder()
        let disk = ToolFolder.mixedDisk(byteCount: 9 << 20, seed: 5)
        let path = try #require(try folder.image(of: disk, format: "vpc", options: options))
        let driver = try open(path)
        let read = try driver.readBytes(0, Int(driver.byteCount))
        #expect(try folder.disk(of: path, format: "vpc") == read)
        #expect(Array(read.prefix(disk.count)) == disk)
        if options.contains("force_size") { #expect(driver.byteCount == UInt64(disk.count)) }
        #expect(driver.clusterByteCount == (options.contains("fixed") ? nil : 2 << 20))
    }

    @Test func whatHasNoBlockIsAHole() throws {
        let folder = try ToolFolder()
        var disk = [UInt8](repeating: 0, count: 16 << 20)
        disk[5 << 20] = 1
        let path = try #require(
            try folder.image(of: disk, format: "vpc", options: "subformat=dynamic,force_size=on"))
        let driver = try open(path)
        let extents = try driver.extents(at: 0, byteCount: driver.byteCount, limit: 10)
        #expect(extents.map(\.offset) == [0, 4 << 20, 6 << 20])
        #expect(extents[0].kind == .zero(allocated: false))
        guard case .data = extents[1].kind else {
            Issue.record("\(extents)")
            return
        }
    }

    /// A guest that writes a footer behind its disk must not change how the next one opens it.
    @Test func onlyAnImageThatGrowsIsRecognised() throws {
        let folder = try ToolFolder()
        for (options, isRecognised) in [("subformat=dynamic", true), ("subformat=fixed", false)] {
            let path = try #require(
                try folder.image(of: [UInt8](repeating: 1, count: 1 << 20), format: "vpc", options: options))
            let head = try PlainFile(path: path, isReadOnly: true).readBytes(0, 512)
            #expect(VpcFactory().recognises(head: head) == isRecognised)
        }
    }
}

/// Each rule of the format, broken; checksums are right unless they are what is tested.
@Suite struct VpcHostileImageTests {
    private static let image: [UInt8] = {
        let folder = try? ToolFolder()
        let disk = ToolFolder.mixedDisk(byteCount: 5 << 20, seed: 6)
        let path = try? folder?.image(of: disk, format: "vpc", options: "subformat=dynamic,force_size=on")
        guard let path, let file = try? PlainFile(path: path, isReadOnly: true) else { return [] }
        return (try? file.readBytes(0, Int(file.byteCount))) ?? []
    }()

    private static let headerOffset = 512

    private func expectRefused(_ bytes: [UInt8], _ text: String) throws {
        let file = MemoryFile()
        file.replace(with: bytes)
        let refusal = try #require(try refusal { _ = try VpcImage(BlockNode(name: "file", driver: file)) })
        #expect(refusal.contains(text))
    }

    @Test(
        arguments: [
            (
                16, [255, 255, 255, 255, 255, 255, 255, 255],
                "The header (1024 bytes at 18446744073709551615) lies outside"
            ),
            (16, [0, 0, 0, 0, 0, 0, 0, 0], "no header at 0"), (60, [0, 0, 0, 4], "has a parent"),
            (60, [0, 0, 0, 2], "has its footer at its beginning"), (60, [0, 0, 0, 9], "of type 9"),
            (48, [255, 0, 0, 0, 0, 0, 0, 0], "larger than the format's"),
            (48, [0, 0, 1, 0, 0, 0, 0, 0], "too short for the disk's"),
        ] as [(Int, [UInt8], String)])
    func aFooterThatBreaksARuleIsRefused(offset: Int, patch: [UInt8], text: String) throws {
        var bytes = Self.image
        bytes.replaceSubrange(offset..<offset + patch.count, with: patch)
        bytes.storeBigEndian(VpcFooter.checksum(Array(bytes[..<512]), at: 64), at: 64)
        try expectRefused(bytes, text)
    }

    @Test(
        arguments: [
            (16, [127, 255, 255, 255, 255, 255, 255, 0], "The table of blocks"), (28, [0, 0, 0, 1], "too short"),
            (32, [0, 0, 0, 0], "blocks of 0 bytes"), (32, [0, 32, 0, 1], "blocks of 2097153 bytes"),
        ] as [(Int, [UInt8], String)])
    func aHeaderThatBreaksARuleIsRefused(offset: Int, patch: [UInt8], text: String) throws {
        var bytes = Self.image
        let start = Self.headerOffset
        bytes.replaceSubrange(start + offset..<start + offset + patch.count, with: patch)
        bytes.storeBigEndian(VpcFooter.checksum(Array(bytes[start..<start + 1024]), at: 36), at: start + 36)
        try expectRefused(bytes, text)
    }

    @Test func checksumsAreCompared() throws {
        for offset in [100, Self.headerOffset + 900] {
            var bytes = Self.image
            bytes[offset] ^= 1
            try expectRefused(bytes, "does not match its checksum")
        }
    }

    /// Tiny blocks of a large disk would need a large table.
    @Test func tablesAreBounded() throws {
        var bytes = Self.image
        let start = Self.headerOffset
        bytes.storeBigEndian(UInt64(2000) << 30, at: 48)
        bytes.storeBigEndian(VpcFooter.checksum(Array(bytes[..<512]), at: 64), at: 64)
        bytes.storeBigEndian(UInt32(512), at: start + 32)
        bytes.storeBigEndian(VpcFooter.checksum(Array(bytes[start..<start + 1024]), at: 36), at: start + 36)
        try expectRefused(bytes, "up to 4194304 are read")
    }

    @Test func aBlockOutsideTheFileIsAnErrorWhenItIsRead() throws {
        var bytes = Self.image
        let table = Int(bytes.bigEndian(UInt64.self, at: Self.headerOffset + 16))
        bytes.storeBigEndian(UInt32(0x7FFF_FFFF), at: table)
        let file = MemoryFile()
        file.replace(with: bytes)
        let driver = VpcDriver(try VpcImage(BlockNode(name: "file", driver: file)))
        #expect(throws: ColdframeError.self) { try driver.readBytes(0, 1) }
        _ = try driver.readBytes(2 << 20, 2 << 20)
    }

    @Test func aFixedDiskThatWasCutShortIsRefused() throws {
        let folder = try ToolFolder()
        let disk = [UInt8](repeating: 1, count: 1 << 20)
        let path = try #require(
            try folder.image(of: disk, format: "vpc", options: "subformat=fixed,force_size=on"))
        let bytes = try PlainFile(path: path, isReadOnly: true).readBytes(0, disk.count + 512)
        try expectRefused(Array(bytes.dropFirst(4096)), "it was cut short")
        try expectRefused(Array(bytes.prefix(100)), "The first sector")
        try expectRefused(Array(bytes.prefix(disk.count)), "no footer")
    }
}

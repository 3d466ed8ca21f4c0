import ColdframeKit
import ConformanceKit
import Testing

@testable import VmdkFormat

func openImage(_ path: String) throws -> VmdkDriver {
    VmdkDriver(try VmdkImage(BlockNode(name: "file", driver: try PlainFile(path: path, isReadOnly: true))))
}

func openImage(_ bytes: [UInt8]) throws -> VmdkDriver {
    let file = MemoryFile()
    file.replace(with: bytes)
    return VmdkDriver(try VmdkImage(BlockNode(name: "file", driver: file)))
}

/// Images that qemu-img made are read as it reads them.
@Suite struct VmdkDriverTests {
    @Test(
        arguments: [
            "subformat=monolithicSparse", "subformat=streamOptimized", "subformat=monolithicSparse,zeroed_grain=on",
            "subformat=monolithicSparse,adapter_type=lsilogic,hwversion=7",
        ])
    func bothTypesAreReadAsQEMUReadsThem(options: String) throws {
        let folder = try ToolFolder()
        let disk = ToolFolder.mixedDisk(byteCount: (40 << 20) + 3 * 512, seed: 7)
        let path = try #require(try folder.image(of: disk, format: "vmdk", options: options))
        let driver = try openImage(path)
        #expect(driver.byteCount == UInt64(disk.count))
        #expect(try driver.readBytes(0, disk.count) == disk)
        // Parts of grains, forwards and backwards.
        for start in stride(from: disk.count - 700, to: 0, by: -1_000_003) {
            #expect(try driver.readBytes(UInt64(start), 700) == Array(disk[start..<start + 700]))
        }
        #expect(driver.clusterByteCount == 65536)
    }

    @Test func zeroGrainsAndHolesAreExtents() throws {
        let folder = try ToolFolder()
        let path = folder.path("image")
        try folder.require("qemu-img", "create", "-q", "-f", "vmdk", "-o", "zeroed_grain=on", path, "100M")
        try folder.require(
            "qemu-io", "-f", "vmdk", "-c", "write -P 1 64k 128k", "-c", "write -z 1M 64k", "-c", "write -P 2 90M 64k",
            path)
        let driver = try openImage(path)
        let extents = try driver.extents(at: 0, byteCount: driver.byteCount, limit: 100)
        let kibibytes = extents.map { $0.offset >> 10 }
        #expect(kibibytes == [0, 64, 192, 1024, 1088, 92160, 92224])
        #expect(extents[3].kind == .zero(allocated: true))
        #expect(extents[4].kind == .zero(allocated: false))
        #expect(try folder.disk(of: path, format: "vmdk") == driver.readBytes(0, 100 << 20))
    }

    /// As exporters write a stream: what is known only at its end stands at its end.
    @Test func aStreamThatKnowsItsDirectoryAtItsEndIsRead() throws {
        let folder = try ToolFolder()
        let disk = ToolFolder.mixedDisk(byteCount: 8 << 20, seed: 8)
        let path = try #require(try folder.image(of: disk, format: "vmdk", options: "subformat=streamOptimized"))
        var bytes = try PlainFile(path: path, isReadOnly: true).readBytes(0, Int(openImage(path).file.byteCount))
        bytes.pad(toMultipleOf: 512)
        let header = Array(bytes[..<512])
        bytes.storeBigEndian(UInt64.max, at: 56)
        var marker = [UInt8](repeating: 0, count: 512)
        marker.storeLittleEndian(UInt64(1), at: 0)
        marker.storeLittleEndian(UInt32(3), at: 12)
        bytes += marker + header + [UInt8](repeating: 0, count: 512)
        try folder.write(bytes, to: "stream")
        #expect(try folder.disk(of: folder.path("stream"), format: "vmdk") == disk)
        #expect(try openImage(folder.path("stream")).readBytes(0, disk.count) == disk)
        // Without its end it is none.
        #expect(throws: ColdframeError.self) { try openImage(Array(bytes.dropLast(512))) }
    }

    @Test(
        arguments: [
            ("subformat=monolithicFlat", "no single sparse file"),
            ("subformat=twoGbMaxExtentSparse", "no single sparse file"),
        ])
    func otherLayoutsAreRefusedInWords(options: String, text: String) throws {
        let folder = try ToolFolder()
        try folder.require("qemu-img", "create", "-q", "-f", "vmdk", "-o", options, folder.path("image.vmdk"), "4M")
        let node = BlockNode(name: "file", driver: try PlainFile(path: folder.path("image.vmdk"), isReadOnly: true))
        #expect(VmdkFactory().recognises(head: try node.driver.readBytes(0, min(512, Int(node.byteCount)))))
        let refusal = try #require(try refusal { _ = try VmdkImage(node) })
        #expect(refusal.contains(text))
    }

    @Test func aParentIsNotFollowed() throws {
        let folder = try ToolFolder()
        let (base, top) = (folder.path("base.vmdk"), folder.path("top.vmdk"))
        try folder.require("qemu-img", "create", "-q", "-f", "vmdk", base, "4M")
        try folder.require("qemu-img", "create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", top)
        let refusal = try #require(try refusal { _ = try openImage(top) })
        #expect(refusal.contains("'\(base)', which is not followed"))
    }
}

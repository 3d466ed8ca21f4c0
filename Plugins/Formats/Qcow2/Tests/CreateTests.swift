import ColdframeKit
import LinuxSystem
import Testing

@testable import Qcow2Format

@Suite struct CreateTests {
    @Test(arguments: [0, 512, 65536, 1 << 20, (1 << 40) + 512] as [UInt64])
    func aNewImageIsClean(byteCount: UInt64) throws {
        let fixture = try ImageFixture()
        let path = fixture.path("new.qcow2")
        try createImage(path, byteCount: byteCount)
        try fixture.expectClean(path)
        let info = try fixture.run("qemu-img", ["info", "--output=json", path])
        #expect(info.contains("\"virtual-size\": \(byteCount)"))
        #expect(info.contains("\"compat\": \"1.1\""))
    }

    @Test(arguments: [512, 4096, 65536, 2 << 20] as [UInt64], [1, 8, 16, 64] as [UInt64])
    func everyClusterSizeAndRefcountWidth(clusterByteCount: UInt64, refcountBits: UInt64) throws {
        let fixture = try ImageFixture()
        let path = fixture.path("new.qcow2")
        try createImage(path, byteCount: 8 << 20, clusterByteCount: clusterByteCount, refcountBits: refcountBits)
        try fixture.expectClean(path)
        let data = pattern(300_000, 1)
        let disk = try openImage(path)
        try disk.writeBytes(data, at: 1_000_001)
        #expect(try disk.readBytes(1_000_001, data.count) == data)
        try disk.close()
        try fixture.expectClean(path)
        let content = try fixture.content(path)
        #expect(Array(content[1_000_001..<1_300_001]) == data)
    }

    @Test func aBackingFileIsNamedWithItsFormat() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("base.qcow2"), byteCount: 1 << 20)
        try createImage(fixture.path("top.qcow2"), byteCount: 2 << 20, backingFilename: "base.qcow2")
        let info = try fixture.run("qemu-img", ["info", fixture.path("top.qcow2")])
        #expect(info.contains("backing file: base.qcow2"))
        #expect(info.contains("backing file format: qcow2"))
        let image = try Qcow2Image.read(try fileNode(fixture.path("top.qcow2")))
        #expect(image.backingFilename == "base.qcow2")
        #expect(image.backingFormat == "qcow2")
    }
}

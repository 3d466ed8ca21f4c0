import ColdframeKit
import ConformanceKit
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

    /// Every mode of preallocation, with and without subclusters and a data file, is read by QEMU as zeros and takes the
    /// space that it says.
    @Test(arguments: Qcow2Create.Preallocation.allCases, [false, true])
    func preallocation(mode: Qcow2Create.Preallocation, hasDataFile: Bool) throws {
        for hasExtendedL2 in [false, true] {
            let fixture = try ImageFixture()
            let path = fixture.path("new.qcow2")
            var spec = ImageSpec(options: .init(diskByteCount: (5 << 20) + 512))
            spec.options.preallocation = mode
            spec.options.hasExtendedL2 = hasExtendedL2
            spec.hasDataFile = hasDataFile
            try spec.make(fixture, path)
            try fixture.expectClean(path)
            #expect(try fixture.content(path).allSatisfy { $0 == 0 })
            let file = hasDataFile ? path + ".data" : path
            let taken = try PlainFile(path: file).information().allocatedByteCount ?? 0
            #expect((taken >= 5 << 20) == (mode == .falloc || mode == .full), "\(mode) \(taken)")
            let disk = try spec.open(path)
            try disk.writeBytes(pattern(100_000, 3), at: 1_000_000)
            #expect(try disk.readBytes(1_000_000, 100_000) == pattern(100_000, 3))
            try disk.close()
            try fixture.expectClean(path)
        }
    }

    @Test func optionsThatExcludeOneAnotherAreRefused() {
        func refused(_ change: (inout Qcow2Create.Options) -> Void, dataFile: Bool = false) -> Bool {
            var options = Qcow2Create.Options(diskByteCount: 1 << 20)
            change(&options)
            do { _ = try Qcow2Create.checked(&options, hasDataFile: dataFile) } catch { return true }
            return false
        }
        #expect(!refused { _ in })
        #expect(refused { $0.diskByteCount = 1000 })
        #expect(refused { $0.clusterByteCount = 3000 })
        #expect(refused { $0.refcountBits = 3 })
        #expect(
            refused {
                $0.hasExtendedL2 = true; $0.clusterByteCount = 8192
            })
        #expect(
            refused {
                $0.hasExtendedL2 = true; $0.version = 2
            })
        #expect(
            refused {
                $0.hasLazyRefcounts = true; $0.version = 2
            })
        #expect(
            refused {
                $0.compressesWithZstd = true; $0.version = 2
            })
        #expect(refused { $0.isDataFileRaw = true })
        #expect(refused({ $0.version = 2 }, dataFile: true))
        #expect(
            refused {
                $0.backingFilename = "b"; $0.preallocation = .metadata
            })
        #expect(
            !refused {
                $0.backingFilename = "b"; $0.preallocation = .metadata; $0.hasExtendedL2 = true
            })
        #expect(refused { $0.backingFormat = "raw" })
    }
}

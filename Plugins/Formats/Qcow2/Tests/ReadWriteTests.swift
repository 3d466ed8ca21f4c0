import ColdframeKit
import LinuxSystem
import Testing

@testable import Qcow2Format

@Suite struct ReadWriteTests {
    @Test func aFreshDiskReadsAsZeros() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 1 << 20)
        let disk = try openImage(fixture.path("a"))
        #expect(try disk.readBytes(12345, 100_000) == [UInt8](repeating: 0, count: 100_000))
    }

    @Test func aPartialWriteKeepsWhatIsAroundIt() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 1 << 20)
        let disk = try openImage(fixture.path("a"))
        try disk.writeBytes([UInt8](repeating: 7, count: 65536), at: 65536)
        try disk.writeBytes([1, 2, 3], at: 70000)
        #expect(try disk.readBytes(69999, 5) == [7, 1, 2, 3, 7])
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }

    @Test func clusterReservesAreGivenBackOnClose() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 64 << 20)
        let disk = try openImage(fixture.path("a"))
        try disk.writeBytes([1], at: 0)
        try fixture.expectNoErrors(fixture.path("a"), "while open")
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
        #expect(try Files.status(fixture.path("a")).byteCount <= 6 * 65536)
    }

    @Test func aReusedClusterShowsNothingOfItsFormerContent() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 64 << 20)
        let disk = try openImage(fixture.path("a"))
        try disk.writeBytes([UInt8](repeating: 0xAA, count: 8 << 20), at: 0)
        try disk.discard(at: 0, byteCount: 8 << 20)
        try disk.flush()
        try disk.close()
        let again = try openImage(fixture.path("a"))
        try again.writeBytes([1], at: 32 << 20)
        #expect(try again.readBytes(32 << 20, 65536) == [1] + [UInt8](repeating: 0, count: 65535))
        try again.close()
        try fixture.expectClean(fixture.path("a"))
    }

    @Test func discardGivesSpaceBack() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 64 << 20)
        let disk = try openImage(fixture.path("a"))
        try disk.writeBytes(pattern(8 << 20, 3), at: 0)
        try disk.flush()
        let before = try Files.status(fixture.path("a")).allocatedByteCount
        try disk.discard(at: 0, byteCount: 8 << 20)
        try disk.flush()
        let after = try Files.status(fixture.path("a")).allocatedByteCount
        #expect(after + (7 << 20) < before)
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }

    @Test func anOverlayShowsItsBackingFileAndZerosBehindIt() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("base"), byteCount: 100 * 512)
        try createImage(fixture.path("top"), byteCount: 1 << 20, backingFilename: "base")
        let base = try openImage(fixture.path("base"))
        let data = pattern(100 * 512, 5)
        try base.writeBytes(data, at: 0)
        let top = try openImage(fixture.path("top"), backing: BlockNode(name: "base", driver: base))
        #expect(try top.readBytes(0, 60000) == data + [UInt8](repeating: 0, count: 60000 - data.count))
        try top.writeBytes([9, 9], at: 1000)
        #expect(try top.readBytes(0, 2000) == data[..<1000] + [9, 9] + data[1002..<2000])
        try top.writeZeroes(at: 0, byteCount: 65536, flags: .mayUnmap)
        #expect(try top.readBytes(0, 65536) == [UInt8](repeating: 0, count: 65536))
        try top.close()
        try base.close()
        try fixture.expectClean(fixture.path("top"))
    }

    @Test func aVersion2OverlayIsZeroedByWriting() throws {
        let fixture = try ImageFixture()
        try fixture.run("qemu-img", ["create", "-q", "-f", "qcow2", fixture.path("base"), "1M"])
        try fixture.run("qemu-io", ["-c", "write -P 5 0 1M", fixture.path("base")])
        try fixture.run(
            "qemu-img",
            [
                "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", fixture.path("base"), "-F", "qcow2",
                fixture.path("top"),
            ])
        let base = try openImage(fixture.path("base"), isReadOnly: true)
        let top = try openImage(fixture.path("top"), backing: BlockNode(name: "base", driver: base))
        try top.writeZeroes(at: 1000, byteCount: 200_000, flags: .mayUnmap)
        #expect(throws: ColdframeError.self) {
            try top.writeZeroes(at: 0, byteCount: 200_000, flags: .noFallback)
        }
        #expect(try top.readBytes(999, 3) == [5, 0, 0])
        try top.close()
        try fixture.expectClean(fixture.path("top"))
    }

    @Test func writesPastManyRefcountBlocks() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 16 << 20, clusterByteCount: 512, refcountBits: 64)
        let disk = try openImage(fixture.path("a"))
        let data = pattern(12 << 20, 9)
        try disk.writeBytes(data, at: 512)
        #expect(try disk.readBytes(512, data.count) == data)
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }

    @Test func extentsTellDataZerosAndHoles() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 1 << 20)
        let disk = try openImage(fixture.path("a"))
        try disk.writeBytes([UInt8](repeating: 1, count: 65536), at: 65536)
        try disk.writeBytes([UInt8](repeating: 1, count: 65536), at: 3 * 65536)
        try disk.writeZeroes(at: 3 * 65536, byteCount: 65536, flags: [])
        let extents = try disk.extents(at: 0, byteCount: 1 << 20, limit: 10)
        #expect(extents.map(\.byteCount) == [65536, 65536, 65536, 65536, 12 * 65536])
        #expect(extents[0].kind == .zero(allocated: false))
        #expect(extents[3].kind == .zero(allocated: true))
        guard case .data(let source, let host) = extents[1].kind else {
            Issue.record("no data extent")
            return
        }
        #expect(source === (disk.file.node.driver as AnyObject))
        #expect(try disk.file.node.driver.readBytes(host, 65536) == [UInt8](repeating: 1, count: 65536))
        #expect(try disk.extents(at: 0, byteCount: 1 << 20, limit: 2).count == 2)
    }

    @Test func parallelWritersKeepEveryByte() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 64 << 20)
        let disk = try openImage(fixture.path("a"), isReadOnly: false)
        let threads = try (0..<8).map { worker in
            try SystemThread.start(name: "writer\(worker)") {
                var generator = SeededGenerator(seed: UInt64(worker))
                // Each writes its own 512-byte sectors of the same clusters.
                for round in 0..<400 {
                    let sector = UInt64.random(in: 0..<2048, using: &generator) * 8 + UInt64(worker)
                    let bytes = [UInt8](repeating: UInt8(worker + 1), count: 512)
                    do {
                        try disk.writeBytes(bytes, at: sector * 512)
                        #expect(try disk.readBytes(sector * 512, 512) == bytes)
                        if round % 100 == 99 { try disk.flush() }
                    } catch {
                        Issue.record(error)
                    }
                }
            }
        }
        for thread in threads { thread.join() }
        for sector in stride(from: UInt64(0), to: 2048 * 8, by: 8) {
            let bytes = try disk.readBytes(sector * 512, 4096)
            for worker in 0..<8 {
                let part = Set(bytes[worker * 512..<(worker + 1) * 512])
                #expect(part == [0] || part == [UInt8(worker + 1)])
            }
        }
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }
}

import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

@Suite struct ResizeTests {
    @Test func growthShowsZerosAndNotTheBackingFile() throws {
        let fixture = try ImageFixture()
        for version in [2, 3] as [UInt32] {
            let base = fixture.path("base\(version)")
            try createImage(base, byteCount: 4 << 20)
            let baseDisk = try openImage(base)
            try baseDisk.writeBytes(pattern(4 << 20, 1), at: 0)
            let top = fixture.path("top\(version)")
            let node = try fileNode(top, creates: true)
            var options = Qcow2Create.Options(diskByteCount: (1 << 20) + 512)
            options.version = version
            options.backingFilename = base
            options.backingFormat = "qcow2"
            try Qcow2Create.write(options, into: node)
            let disk = try openImage(node, backing: BlockNode(name: "base", driver: baseDisk))
            try disk.resize(toByteCount: 8 << 20)
            #expect(disk.byteCount == 8 << 20)
            let content = try disk.readBytes(0, 8 << 20)
            #expect(Array(content[..<((1 << 20) + 512)]) == Array(pattern(4 << 20, 1)[..<((1 << 20) + 512)]))
            #expect(content[((1 << 20) + 512)...].allSatisfy { $0 == 0 })
            try disk.close()
            try baseDisk.close()
            try fixture.expectClean(top)
            #expect(try fixture.content(top) == content)
        }
    }

    @Test func whatWasCutOffDoesNotComeBack() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20, clusterByteCount: 4096)
        let disk = try openImage(path)
        try disk.writeBytes(pattern(1 << 20, 1), at: 0)
        try disk.resize(toByteCount: 100_352)
        try disk.resize(toByteCount: 1 << 20)
        let content = try disk.readBytes(0, 1 << 20)
        #expect(Array(content[..<100_352]) == Array(pattern(1 << 20, 1)[..<100_352]))
        #expect(content[100_352...].allSatisfy { $0 == 0 })
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func aSnapshotKeepsItsSize() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20, clusterByteCount: 4096)
        let disk = try openImage(path)
        try disk.writeBytes(pattern(1 << 20, 1), at: 0)
        let info = try disk.createSnapshot(request("before"))
        try disk.resize(toByteCount: 8192)
        try disk.writeBytes([1, 2, 3], at: 0)
        #expect(try disk.openSnapshot(id: info.id).readBytes(0, 1 << 20) == pattern(1 << 20, 1))
        try disk.resize(toByteCount: 16 << 20)
        try disk.revert(toSnapshot: info.id)
        #expect(disk.byteCount == 1 << 20)
        #expect(try disk.readBytes(0, 1 << 20) == pattern(1 << 20, 1))
        try disk.deleteSnapshot(id: info.id)
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func aSizeThatTheFormatCannotHoldIsRefused() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20, clusterByteCount: 512)
        let disk = try openImage(path)
        #expect(throws: ColdframeError.self) { try disk.resize(toByteCount: 1 << 62) }
        #expect(throws: ColdframeError.self) { try disk.resize(toByteCount: 1000) }
        #expect(disk.byteCount == 1 << 20)
        try disk.close()
        try fixture.expectClean(path)
    }
}

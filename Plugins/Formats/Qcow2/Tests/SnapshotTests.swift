import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

func request(_ name: String, annotation: [UInt8] = [], idFloor: UInt64 = 0) -> SnapshotRequest {
    SnapshotRequest(
        name: name, dateSeconds: 1_700_000_000, dateNanoseconds: 5, guestClockNanoseconds: 7, annotation: annotation,
        idFloor: idFloor)
}

@Suite struct SnapshotTests {
    @Test func aSnapshotKeepsTheDiskAsItWas() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 8 << 20)
        let disk = try openImage(path)
        let old = pattern(1 << 20, 1)
        try disk.writeBytes(old, at: 100)
        let info = try disk.createSnapshot(request("one"))
        #expect(info.id == "1")
        try disk.writeBytes(pattern(1 << 20, 2), at: 5000)
        let view = try disk.openSnapshot(id: "1")
        #expect(try view.readBytes(100, old.count) == old)
        #expect(try disk.readBytes(5000, 1 << 20) == pattern(1 << 20, 2))
        try disk.close()
        try fixture.expectClean(path)
        #expect(Array(try fixture.content(path, snapshot: "one")[100..<100 + old.count]) == old)
        #expect(try fixture.run("qemu-img", ["snapshot", "-l", path]).contains("one"))
    }

    @Test func revertBringsBackAndKeepsTheSnapshot() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 8 << 20)
        let disk = try openImage(path)
        try disk.writeBytes(pattern(1 << 20, 1), at: 0)
        _ = try disk.createSnapshot(request("one"))
        try disk.writeBytes(pattern(2 << 20, 2), at: 500_000)
        try disk.revert(toSnapshot: "1")
        #expect(try disk.readBytes(0, 3 << 20) == pattern(1 << 20, 1) + [UInt8](repeating: 0, count: 2 << 20))
        try disk.writeBytes([1, 2, 3], at: 3)
        let view = try disk.openSnapshot(id: "1")
        #expect(try view.readBytes(0, 1 << 20) == pattern(1 << 20, 1))
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func deleteFreesAllThatOnlyTheSnapshotHeld() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 64 << 20)
        let disk = try openImage(path)
        try disk.writeBytes(pattern(8 << 20, 1), at: 0)
        _ = try disk.createSnapshot(request("one"))
        try disk.writeBytes(pattern(8 << 20, 2), at: 0)
        try disk.flush()
        let before = try Files.status(path).allocatedByteCount
        try disk.deleteSnapshot(id: "1")
        #expect(disk.snapshots.isEmpty)
        #expect(try Files.status(path).allocatedByteCount + (7 << 20) < before)
        #expect(try disk.readBytes(0, 8 << 20) == pattern(8 << 20, 2))
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func idsFollowTheGreatestAndTheFloor() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 1 << 20)
        let disk = try openImage(fixture.path("a"))
        #expect(try disk.createSnapshot(request("a")).id == "1")
        #expect(try disk.createSnapshot(request("b", idFloor: 8)).id == "9")
        try disk.deleteSnapshot(id: "1")
        #expect(try disk.createSnapshot(request("c")).id == "10")
        #expect(disk.snapshots.map(\.name) == ["b", "c"])
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }

    @Test func anAnnotationOutlivesQEMU() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20)
        let annotation = Array("a set's identity".utf8)
        let disk = try openImage(path)
        _ = try disk.createSnapshot(request("ours", annotation: annotation))
        try disk.close()
        try fixture.run("qemu-img", ["snapshot", "-c", "theirs", path])
        try fixture.run("qemu-io", ["-c", "write -P 3 0 64k", path])
        try fixture.expectClean(path)
        let again = try openImage(path)
        #expect(again.snapshots.map(\.name) == ["ours", "theirs"])
        #expect(again.snapshots[0].annotation == annotation)
        #expect(again.snapshots[0].dateNanoseconds == 5)
        #expect(again.snapshots[0].guestClockNanoseconds == 7)
        #expect(again.snapshots[0].icount == nil)
        #expect(again.snapshots[1].annotation.isEmpty)
        try again.deleteSnapshot(id: again.snapshots[1].id)
        try again.close()
        try fixture.expectClean(path)
    }

    @Test func qemuRevertsAndDeletesOurSnapshots() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 4 << 20)
        let disk = try openImage(path)
        try disk.writeBytes(pattern(1 << 20, 1), at: 0)
        _ = try disk.createSnapshot(request("one"))
        try disk.writeBytes(pattern(1 << 20, 2), at: 70000)
        _ = try disk.createSnapshot(request("two"))
        try disk.writeBytes(pattern(1 << 20, 3), at: 140_000)
        try disk.close()
        try fixture.run("qemu-img", ["snapshot", "-a", "one", path])
        try fixture.expectClean(path)
        #expect(Array(try fixture.content(path)[0..<1 << 20]) == pattern(1 << 20, 1))
        try fixture.run("qemu-img", ["snapshot", "-d", "one", path])
        try fixture.expectClean(path)
        let again = try openImage(path)
        #expect(try again.readBytes(0, 1 << 20) == pattern(1 << 20, 1))
        try again.writeBytes(pattern(1 << 20, 4), at: 11)
        try again.revert(toSnapshot: "2")
        #expect(try again.readBytes(70000, 1 << 20) == pattern(1 << 20, 2))
        try again.close()
        try fixture.expectClean(path)
    }

    @Test func compressedClustersAreCountedAndReadInSnapshots() throws {
        let fixture = try ImageFixture()
        let raw = fixture.path("raw")
        let path = fixture.path("a")
        var data = [UInt8](repeating: 0, count: 1 << 20)
        for index in data.indices { data[index] = UInt8(index >> 9 & 0xFF) }
        try Files.replaceAtomically(raw, contents: data)
        try fixture.run("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow2", raw, path])
        let disk = try openImage(path)
        #expect(try disk.readBytes(0, 1 << 20) == data)
        _ = try disk.createSnapshot(request("one"))
        try disk.writeBytes([0xEE], at: 100_000)
        #expect(try disk.readBytes(99_999, 3) == [data[99_999], 0xEE, data[100_001]])
        try disk.writeZeroes(at: 0, byteCount: 65536, flags: [])
        let view = try disk.openSnapshot(id: "1")
        #expect(try view.readBytes(0, 1 << 20) == data)
        try disk.flush()
        try disk.deleteSnapshot(id: "1")
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func aRefcountOfOneBitRefusesAndChangesNothing() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 1 << 20, refcountBits: 1)
        let disk = try openImage(fixture.path("a"))
        try disk.writeBytes([1], at: 0)
        #expect(throws: ColdframeError.self) { try disk.createSnapshot(request("one")) }
        #expect(disk.snapshots.isEmpty)
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }

    @Test func revertAlsoBringsBackTheSize() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20)
        let disk = try openImage(path)
        try disk.writeBytes([5], at: (1 << 20) - 1)
        _ = try disk.createSnapshot(request("small"))
        try disk.close()
        try fixture.run("qemu-img", ["resize", "-q", path, "3G"])
        let again = try openImage(path)
        #expect(again.byteCount == 3 << 30)
        try again.writeBytes([6], at: (3 << 30) - 1)
        try again.revert(toSnapshot: "1")
        #expect(again.byteCount == 1 << 20)
        #expect(try again.readBytes((1 << 20) - 1, 1) == [5])
        try again.close()
        try fixture.expectClean(path)
    }

    @Test func createMakesTwoFlushes() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 1 << 30)
        let file = try PlainFile(path: fixture.path("a"))
        let disk = try openImage(BlockNode(name: "file", driver: file))
        try disk.writeBytes(pattern(4 << 20, 1), at: 0)
        try disk.flush()
        let before = file.flushCount.load(ordering: .relaxed)
        _ = try disk.createSnapshot(request("one"))
        #expect(file.flushCount.load(ordering: .relaxed) - before == 2)
        try disk.close()
    }
}

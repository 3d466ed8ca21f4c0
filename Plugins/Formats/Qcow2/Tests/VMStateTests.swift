import ColdframeKit
import LinuxSystem
import Testing

@testable import Qcow2Format

@Suite struct VMStateTests {
    private func append(_ writer: any VMStateWriter, _ bytes: [UInt8], inSteps step: Int) throws {
        var position = 0
        while position < bytes.count {
            let end = min(bytes.count, position + step)
            try bytes[position..<end].withUnsafeBytes { try writer.append($0) }
            position = end
        }
    }

    @Test(arguments: [1, 65536, 65537, 3_000_001] as [Int], [512, 65536, 2 << 20] as [UInt64])
    func aStateIsReadBack(byteCount: Int, clusterByteCount: UInt64) throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 4 << 20, clusterByteCount: clusterByteCount)
        let state = pattern(byteCount, 3)
        let disk = try openImage(path)
        try disk.writeBytes(pattern(1 << 20, 1), at: 0)
        let writer = try disk.beginVMState()
        try append(writer, Array(state.prefix(byteCount / 2)), inSteps: 32768)
        _ = try disk.createSnapshot(request("one"))
        try append(writer, Array(state.suffix(byteCount - byteCount / 2)), inSteps: 1 << 21)
        try disk.writeBytes(pattern(1 << 20, 2), at: 0)
        let info = try writer.attach(toSnapshot: "1", annotation: [1, 2], guestClockNanoseconds: 99)
        #expect(info.vmStateByteCount == UInt64(byteCount))
        #expect(info.annotation == [1, 2])
        let reader = try disk.openVMState(ofSnapshot: "1")
        var read = [UInt8](repeating: 0, count: byteCount)
        try read.withUnsafeMutableBytes { try reader.read(into: $0, at: 0) }
        #expect(read == state)
        try disk.close()
        try fixture.expectClean(path)

        let again = try openImage(path)
        #expect(again.snapshots == [info])
        let view = try again.openSnapshot(id: "1")
        #expect(try view.readBytes(0, 1 << 20) == pattern(1 << 20, 1))
        try again.deleteSnapshot(id: "1")
        try again.close()
        try fixture.expectClean(path)
    }

    @Test func qemuSeesTheStateAndTakesItToTheActiveDisk() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 4 << 20)
        let disk = try openImage(path)
        let writer = try disk.beginVMState()
        _ = try disk.createSnapshot(request("one"))
        let state = pattern(200_000, 8)
        try append(writer, state, inSteps: 50_000)
        _ = try writer.attach(toSnapshot: "1", annotation: [], guestClockNanoseconds: 0)
        try disk.close()
        #expect(try fixture.run("qemu-img", ["snapshot", "-l", path]).contains("195 KiB"))
        try fixture.run("qemu-img", ["snapshot", "-a", "one", path])
        try fixture.expectClean(path)
        // What QEMU left behind the active disk goes to the next snapshot and is freed with it.
        let again = try openImage(path)
        _ = try again.createSnapshot(request("two"))
        try again.deleteSnapshot(id: "1")
        let second = try again.beginVMState()
        try append(second, state, inSteps: 7000)
        _ = try second.attach(toSnapshot: "2", annotation: [], guestClockNanoseconds: 0)
        try again.close()
        try fixture.expectClean(path)
        // `loadvm` reads it through the disk's size.
        let shown = try fixture.run("qemu-io", ["-r", "-c", "read -b 0 4k", path])
        #expect(!shown.contains("failed") || shown.contains("read"))
    }

    @Test func qemusStateIsRead() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 4 << 20)
        // qemu-io's option -b writes the state area of the active disk.
        try fixture.run("qemu-io", ["-c", "write -b -P 7 0 100k", "-c", "write -P 1 0 64k", path])
        try fixture.run("qemu-img", ["snapshot", "-c", "one", path])
        let disk = try openImage(path)
        #expect(try disk.readBytes(0, 2) == [1, 1])
        try disk.revert(toSnapshot: "1")
        try disk.writeBytes([3], at: 0)
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func abandonLeavesNothing() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 4 << 20)
        let disk = try openImage(path)
        let writer = try disk.beginVMState()
        #expect(throws: ColdframeError.self) { try disk.beginVMState() }
        try append(writer, pattern(5 << 20, 3), inSteps: 1 << 20)
        try writer.abandon()
        let second = try disk.beginVMState()
        try append(second, [1, 2, 3], inSteps: 1)
        #expect(throws: ColdframeError.self) {
            try second.attach(toSnapshot: "1", annotation: [], guestClockNanoseconds: 0)
        }
        try second.abandon()
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func aSnapshotTakesOneState() throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 4 << 20)
        let disk = try openImage(fixture.path("a"))
        _ = try disk.createSnapshot(request("one"))
        for expected in [true, false] {
            let writer = try disk.beginVMState()
            try append(writer, [1], inSteps: 1)
            if expected {
                _ = try writer.attach(toSnapshot: "1", annotation: [], guestClockNanoseconds: 0)
            } else {
                #expect(throws: ColdframeError.self) {
                    try writer.attach(toSnapshot: "1", annotation: [], guestClockNanoseconds: 0)
                }
                try writer.abandon()
            }
        }
        try disk.close()
        try fixture.expectClean(fixture.path("a"))
    }
}

import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Bitmaps that an image stores, from us to QEMU and back.
@Suite struct BitmapTests {
    private func bitmap(_ name: String, _ granularity: UInt32, _ size: UInt64, _ ranges: [Range<UInt64>]) -> DirtyBitmap
    {
        var bits = DirtyBits(diskByteCount: size, granularity: granularity)
        for range in ranges { bits.set(at: range.lowerBound, byteCount: UInt64(range.count)) }
        var state = DirtyBitmap.State(name: name)
        state.isPersistent = true
        return DirtyBitmap(bits: bits, state: state)
    }

    private func ranges(_ bitmap: DirtyBitmap) -> [Range<UInt64>] {
        bitmap.withBits { bits in
            var found: [Range<UInt64>] = []
            var offset: UInt64 = 0
            while let run = bits.nextDirty(from: offset) {
                found.append(run)
                offset = run.upperBound
            }
            return found
        }
    }

    @Test func whatIsStoredIsReadByUsAndQEMU() throws {
        let fixture = try ImageFixture()
        for clusterByteCount in [512, 4096, 65536] as [UInt64] {
            let path = fixture.path("a\(clusterByteCount)")
            let size: UInt64 = 32 << 20
            try createImage(path, byteCount: size, clusterByteCount: clusterByteCount)
            var disk = try openImage(path)
            #expect(try disk.loadBitmaps().isEmpty)
            let one = bitmap("one", 512, size, [0..<512, (1 << 20)..<(3 << 20)])
            let two = bitmap("two", 65536, size, [0..<size])
            let three = bitmap("three", 4096, size, [])
            try disk.storeBitmaps([one, two, three])
            try disk.close()
            try fixture.expectClean(path)
            let info = try fixture.run("qemu-img", ["info", path])
            #expect(info.contains("name: one") && info.contains("name: two") && info.contains("name: three"))
            // QEMU notes a write in all of them, and stores them anew.
            try fixture.run("qemu-io", ["-f", "qcow2", "-c", "write 5M 4k", path])
            disk = try openImage(path)
            let loaded = try disk.loadBitmaps()
            #expect(loaded.map(\.name) == ["one", "two", "three"])
            let written: Range<UInt64> = 5_242_880..<5_246_976
            let before: [Range<UInt64>] = [0..<512, 1_048_576..<3_145_728]
            #expect(ranges(loaded[0]) == before + [written])
            #expect(ranges(loaded[1]) == [0..<size])
            #expect(ranges(loaded[2]) == [written])
            try disk.writeBytes([1], at: 9 << 20)
            try disk.storeBitmaps([loaded[1]])
            try disk.close()
            try fixture.expectClean(path)
            disk = try openImage(path, isReadOnly: true)
            #expect(try disk.loadBitmaps().map { $0.state.isReadOnly } == [true])
            disk = try openImage(path)
            _ = try disk.loadBitmaps()
            try disk.storeBitmaps([])
            try disk.close()
            try fixture.expectClean(path)
            #expect(try Qcow2Image.read(try fileNode(path)).header.autoclear == 0)
        }
    }

    @Test func anImageThatWasNotClosedHasInconsistentBitmaps() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20)
        try fixture.run("qemu-img", ["bitmap", "--add", "-g", "4096", path, "b"])
        var disk = try openImage(path)
        #expect(try disk.loadBitmaps().map { $0.state.isInconsistent } == [false])
        try disk.writeBytes([1], at: 0)
        try disk.flush()
        // The driver is dropped without a close.
        disk = try openImage(path)
        let loaded = try disk.loadBitmaps()
        #expect(loaded.map { $0.state.isInconsistent } == [true])
        #expect(try fixture.run("qemu-img", ["info", path]).contains("in-use"))
        // Stays as it is stored, until it is removed.
        try disk.storeBitmaps(loaded)
        #expect(disk.bitmaps.entries.map(\.name) == ["b"])
        try disk.removeStoredBitmap(name: "b")
        try disk.removeStoredBitmap(name: "b")
        try disk.close()
        try fixture.expectNoErrors(path)
        #expect(try !fixture.run("qemu-img", ["info", path]).contains("bitmaps"))
    }

    @Test func whoeverDoesNotLoadThemMakesThemInvalidByWriting() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20)
        try fixture.run("qemu-img", ["bitmap", "--add", path, "b0"])
        let disk = try openImage(path)
        #expect(disk.store.header.autoclear == 1)
        try disk.writeBytes([1], at: 0)
        #expect(disk.store.header.autoclear == 0)
        try disk.close()
    }

    @Test func everyCrashOfAStoreLeavesTheOldOrTheNew() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        let size: UInt64 = 1 << 20
        try createImage(path, byteCount: size, clusterByteCount: 4096)
        var disk = try openImage(path)
        _ = try disk.loadBitmaps()
        try disk.storeBitmaps([bitmap("b", 512, size, [0..<512])])
        try disk.close()
        let base = try Files.readAll(path, limit: 1 << 30)
        let recorder = RecordingDriver(try PlainFile(path: path))
        disk = try openImage(BlockNode(name: "file", driver: recorder))
        let loaded = try disk.loadBitmaps()
        try disk.writeBytes([1], at: 4096)
        loaded[0].noteWrite(at: 4096, byteCount: 1)
        try disk.storeBitmaps(loaded + [bitmap("c", 1024, size, [8192..<9216])])
        try disk.close()
        let calls = recorder.calls
        for count in 0...calls.count {
            let crashed = fixture.path("crashed")
            try Files.replaceAtomically(crashed, contents: RecordingDriver.replay(calls[..<count], on: base))
            try fixture.expectNoErrors(crashed, "after \(count) of \(calls.count) calls")
            let after = try openImage(crashed, isReadOnly: true)
            let isWritten = try after.readBytes(4096, 1) == [1]
            let found = try after.loadBitmaps()
            let b = try #require(found.first { $0.name == "b" })
            // A bitmap that claims to be right is.
            if !b.state.isInconsistent {
                #expect(ranges(b) == (found.count == 2 ? [0..<512, 4096..<4608] : [0..<512]), "after \(count)")
                #expect(!isWritten || found.count == 2, "after \(count)")
            }
        }
    }

    @Test func aHostileDirectoryIsRefused() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20)
        try fixture.run("qemu-img", ["bitmap", "--add", path, "b"])
        let good = try Files.readAll(path, limit: 1 << 30)
        let ext = try #require(try Qcow2Image.read(try fileNode(path)).extensions.bitmaps)
        var generator = SeededGenerator(seed: 3)
        for _ in 0..<300 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let place = Int(ext.directoryOffset.rawValue) + Int.random(in: 0..<32, using: &generator)
                bytes[place] = UInt8.random(in: 0...255, using: &generator)
            }
            let damaged = fixture.path("damaged")
            try Files.replaceAtomically(damaged, contents: bytes)
            // An error or a bitmap, never a crash.
            _ = try? openImage(damaged, isReadOnly: true).loadBitmaps()
        }
    }
}

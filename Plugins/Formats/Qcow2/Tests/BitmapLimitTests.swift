import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Bitmaps up to the limits of the format and of QEMU, and one step behind them.
@Suite struct BitmapLimitTests {
    private static let longName = String(repeating: "n", count: BitmapDirectory.nameByteCountLimit)

    private func bitmap(_ name: String, _ granularity: UInt32, _ size: UInt64, dirty: Range<UInt64>) -> DirtyBitmap {
        var bits = DirtyBits(diskByteCount: size, granularity: granularity)
        bits.set(at: dirty.lowerBound, byteCount: UInt64(dirty.count))
        var state = DirtyBitmap.State(name: name)
        state.isPersistent = true
        return DirtyBitmap(bits: bits, state: state)
    }

    private func bits(_ bitmap: DirtyBitmap) -> [Range<UInt64>] {
        bitmap.withBits { bits in
            let first = bits.nextDirty(from: 0)
            return [first, first.flatMap { bits.nextDirty(from: $0.upperBound) }].compactMap(\.self)
        }
    }

    @Test func theFinestAndTheCoarsestAndTheLongestName() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        let size: UInt64 = 64 << 30
        try createImage(path, byteCount: size, clusterByteCount: 65536)
        var disk = try openImage(path)
        _ = try disk.loadBitmaps()
        let end = size - 512
        try disk.storeBitmaps([
            bitmap("fine", 512, size, dirty: end..<size), bitmap("coarse", 1 << 31, size, dirty: 0..<1),
            bitmap(Self.longName, 65536, size, dirty: 65536..<65537),
        ])
        try disk.close()
        try fixture.expectClean(path)
        // QEMU reads them all, and notes a write.
        try fixture.run("qemu-io", ["-f", "qcow2", "-c", "write 32G 512", path])
        disk = try openImage(path)
        let loaded = try disk.loadBitmaps()
        #expect(loaded.map(\.name) == ["fine", "coarse", Self.longName])
        let middle: UInt64 = 32 << 30
        #expect(bits(loaded[0]) == [middle..<middle + 512, end..<size])
        #expect(bits(loaded[1]) == [0..<1 << 31, middle..<middle + 1 << 31])
        #expect(bits(loaded[2]) == [65536..<131_072, middle..<middle + 65536])
        try disk.storeBitmaps(loaded)
        try disk.close()
        try fixture.expectClean(path)
    }

    private func roomRefusal(
        _ disk: Qcow2Driver, _ name: String, _ granularity: UInt32, _ size: UInt64, others: [String] = []
    ) throws -> String {
        do throws(ColdframeError) {
            try disk.checkCanStoreBitmap(name: name, granularity: granularity, diskByteCount: size, beside: others)
            return ""
        } catch {
            return error.message
        }
    }

    @Test func oneStepBehindEachLimitIsRefused() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 1 << 20)
        let disk = try openImage(path)
        let large = "Too much space will be occupied by the bitmap. Use larger granularity"
        #expect(try roomRefusal(disk, "b", 256, 1 << 20) == "Granularity is under minimum (512 bytes)")
        #expect(try roomRefusal(disk, "b", 1 << 31, 1 << 20).isEmpty)
        #expect(try roomRefusal(disk, Self.longName, 512, 1 << 20).isEmpty)
        #expect(
            try roomRefusal(disk, Self.longName + "n", 512, 1 << 20) == "Name length exceeds maximum (1023 characters)")
        // Bits of 512 MiB.
        #expect(try roomRefusal(disk, "b", 512, 2 << 40).isEmpty)
        #expect(try roomRefusal(disk, "b", 512, 2 << 40 + 512) == large)
        #expect(try roomRefusal(disk, "b", 1024, 2 << 40 + 512).isEmpty)
        let names = (0..<65535).map { "b\($0)" }
        #expect(try roomRefusal(disk, "b", 512, 1 << 20, others: Array(names.dropLast())).isEmpty)
        #expect(
            try roomRefusal(disk, "b", 512, 1 << 20, others: names)
                == "Maximum number of persistent bitmaps is already reached")
        // Entries of 1,048 bytes in a directory of 1,024 times 65,535.
        let long = Array(repeating: Self.longName, count: 1024 * 65535 / 1048 - 1)
        #expect(try roomRefusal(disk, Self.longName, 512, 1 << 20, others: long).isEmpty)
        #expect(
            try roomRefusal(disk, Self.longName, 512, 1 << 20, others: long + [Self.longName])
                == "Not enough space in the bitmap directory")
        try disk.close()
    }

    /// A disk that has grown since the bitmap was made: the old directory stays, in use, and nothing leaks.
    @Test func whatDoesNotFitIsNotStored() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 3 << 40, clusterByteCount: 2 << 20)
        let disk = try openImage(path)
        _ = try disk.loadBitmaps()
        try disk.storeBitmaps([bitmap("b", 65536, 3 << 40, dirty: 0..<1)])
        let text = try refusal {
            try disk.storeBitmaps([
                bitmap("b", 65536, 3 << 40, dirty: 0..<1), bitmap("c", 512, 3 << 40, dirty: 0..<1),
            ])
        }
        #expect(text?.contains("Bitmap 'c' is too large for the image") == true)
        #expect(disk.bitmaps.entries.map(\.name) == ["b"])
        try disk.close()
        try fixture.expectClean(path)
    }

    /// A part of what the format allows; all of it with `COLDFRAME_PROPERTY_RUNS`, in minutes.
    @Test func asManyAsTheFormatAllows() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        let size: UInt64 = 64 << 10
        try createImage(path, byteCount: size, clusterByteCount: 512)
        var disk = try openImage(path)
        _ = try disk.loadBitmaps()
        let isLong = ProcessControl.environment("COLDFRAME_PROPERTY_RUNS") != nil
        let count = isLong ? Int(BitmapDirectory.countLimit) : 2000
        try disk.storeBitmaps((0..<count).map { bitmap("b\($0)", 65536, size, dirty: 0..<0) })
        try disk.close()
        try fixture.expectClean(path)
        disk = try openImage(path)
        #expect(try disk.loadBitmaps().count == count)
        try disk.removeStoredBitmap(name: "b7")
        #expect(disk.bitmaps.entries.count == count - 1)
        try disk.close()
        try fixture.expectClean(path)
    }
}

import ColdframeKit
import ConformanceKit
import Testing

@testable import RawSidecarFormat

@Suite struct BitmapTests {
    private static let byteCount: UInt64 = 1 << 30

    private func image() throws -> SubjectImage {
        try SubjectImage(.rawSidecar(), byteCount: Self.byteCount)
    }

    private func bitmap(_ name: String, granularity: UInt32 = 512) -> DirtyBitmap {
        let bitmap = DirtyBitmap(name: name, granularity: granularity, diskByteCount: Self.byteCount)
        bitmap.updateBits {
            $0.set(at: 5000, byteCount: 100_000)
            $0.set(at: Self.byteCount - 1, byteCount: 1)
        }
        bitmap.update { $0.isPersistent = true }
        return bitmap
    }

    @Test func whatWasStoredIsThereAgain() throws {
        let image = try image()
        var disk = try openImage(try image.nodes())
        let (fine, coarse) = (bitmap("fine"), bitmap("coarse", granularity: 65536))
        coarse.update { $0.isRecording = false }
        try disk.storeBitmaps([fine, coarse])
        try disk.close()
        disk = try openImage(try image.nodes())
        let loaded = try disk.loadBitmaps()
        #expect(loaded.map(\.name) == ["fine", "coarse"])
        #expect(loaded.map(\.bits) == [fine.bits, coarse.bits])
        #expect(loaded.map(\.state.isRecording) == [true, false])
        #expect(loaded.allSatisfy { $0.state.isPersistent && !$0.state.isInconsistent && !$0.state.isReadOnly })
        try disk.storeBitmaps([coarse])
        try disk.close()
        disk = try openImage(try image.nodes(isReadOnly: true), isReadOnly: true)
        let rest = try disk.loadBitmaps()
        #expect(rest.map(\.name) == ["coarse"] && rest.allSatisfy(\.state.isReadOnly))
    }

    @Test func storingAgainTakesNoMoreSpace() throws {
        let image = try image()
        let disk = try openImage(try image.nodes())
        try disk.storeBitmaps([bitmap("a")])
        let used = disk.store.usedClusterCount
        for _ in 0..<5 { try disk.storeBitmaps([bitmap("a")]) }
        #expect(disk.store.usedClusterCount == used)
        try disk.removeStoredBitmap(name: "a")
        #expect(disk.store.usedClusterCount < used)
        try disk.close()
    }

    @Test func afterACrashTheyAreInconsistentAndStaySo() throws {
        let image = try image()
        let first = try openImage(try image.nodes())
        try first.storeBitmaps([bitmap("a")])
        // Not closed: as if the agent had been killed.
        let second = try openImage(try image.nodes())
        let loaded = try second.loadBitmaps()
        #expect(loaded.map(\.state.isInconsistent) == [true])
        try second.storeBitmaps(loaded)
        try second.close()
        let third = try openImage(try image.nodes())
        #expect(try third.loadBitmaps().map(\.state.isInconsistent) == [true])
        try third.close()
    }

    @Test func aRawFileThatWasWrittenToMakesThemInconsistent() throws {
        let image = try image()
        let disk = try openImage(try image.nodes())
        try disk.storeBitmaps([bitmap("a")])
        try disk.close()
        let raw = try #require(try image.nodes()["disk.raw"])
        try raw.driver.writeBytes([1], at: 77)
        let again = try openImage(try image.nodes(isReadOnly: true), isReadOnly: true)
        #expect(try again.loadBitmaps().map(\.state.isInconsistent) == [true])
    }

    @Test func limitsAreTold() throws {
        let image = try image()
        let disk = try openImage(try image.nodes())
        func check(_ name: String, _ granularity: UInt32, _ otherCount: Int = 0) throws {
            try disk.checkCanStoreBitmap(
                name: name, granularity: granularity, diskByteCount: disk.byteCount,
                beside: (0..<otherCount).map { "b\($0)" })
        }
        try check("a", 65536, Limits.bitmapCount - 1)
        #expect(throws: ColdframeError.self) { try check("a", 65536, Limits.bitmapCount) }
        #expect(throws: ColdframeError.self) { try check(String(repeating: "n", count: 1024), 65536) }
        #expect(throws: ColdframeError.self) { try check("a", 256) }
        try disk.close()
    }
}

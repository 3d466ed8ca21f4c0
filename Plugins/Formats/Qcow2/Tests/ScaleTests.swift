import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Images and numbers of snapshots as large as people have them. Data is sparse: only the metadata is there.
@Suite struct ScaleTests {
    /// 1 TiB, of which the first 100 GiB have clusters.
    private func largeImage(_ fixture: ImageFixture, gibibytes: Int = 100) throws -> String {
        let path = fixture.path("large")
        try fixture.run(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, "\(gibibytes)G"])
        try fixture.run("qemu-img", ["resize", "-q", path, "1T"])
        return path
    }

    @Test func createDeleteRevertAndListOnATebibyte() throws {
        let fixture = try ImageFixture()
        let path = try largeImage(fixture)
        let disk = try openImage(path)
        let middle: UInt64 = 50 << 30
        try disk.writeBytes(pattern(100_000, 1), at: middle)
        let first = try disk.createSnapshot(request("first"))
        try disk.writeBytes(pattern(100_000, 2), at: middle)
        let second = try disk.createSnapshot(request("second"))
        try disk.writeBytes(pattern(100_000, 3), at: 500 << 30)
        #expect(disk.snapshots.map(\.name) == ["first", "second"])
        try disk.revert(toSnapshot: first.id)
        #expect(try disk.readBytes(middle, 100_000) == pattern(100_000, 1))
        #expect(try disk.readBytes(500 << 30, 100_000) == [UInt8](repeating: 0, count: 100_000))
        let steps = Locked<[UInt64]>([])
        try disk.deleteSnapshot(id: second.id) { done, total in
            #expect(done <= total)
            steps.withLock { $0.append(done) }
        }
        let seen = steps.withLock { $0 }
        #expect(seen.count > 10 && seen == seen.sorted())
        #expect(seen.last == 2 * UInt64(2048) << 29, "each of 2048 tables is looked at twice")
        try disk.deleteSnapshot(id: first.id)
        #expect(try disk.readBytes(middle, 100_000) == pattern(100_000, 1))
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func aDeleteThatIsEndedChangesNothing() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        // Small tables: many of them.
        try createImage(path, byteCount: 64 << 20, clusterByteCount: 4096)
        let disk = try openImage(path)
        for index in 0..<32 { try disk.writeBytes(pattern(5000, UInt64(index)), at: UInt64(index) << 21) }
        let info = try disk.createSnapshot(request("one"))
        for index in 0..<32 { try disk.writeBytes(pattern(700, 99), at: UInt64(index) << 21) }
        let before = try disk.readBytes(0, 64 << 20)
        for end in 0..<5 {
            var count = 0
            let error = #expect(throws: ColdframeError.self) {
                try disk.deleteSnapshot(id: info.id) { _, _ throws(ColdframeError) in
                    count += 1
                    if count > end { throw ColdframeError(.cancelled, "enough") }
                }
            }
            #expect(error?.code == .cancelled)
            #expect(disk.snapshots.map(\.name) == ["one"])
            // What was written for nothing is not taken for zeros.
            let place = UInt64(end) << 21 + 1 << 20
            try disk.writeBytes([1], at: place)
            #expect(try disk.readBytes(place - 4096, 12_288).filter { $0 != 0 } == [1])
            try disk.writeZeroes(at: place, byteCount: 1, flags: [])
        }
        #expect(try disk.readBytes(0, 64 << 20) == before)
        #expect(!disk.isReadOnly)
        try disk.deleteSnapshot(id: info.id)
        #expect(try disk.readBytes(0, 64 << 20) == before)
        try disk.close()
        try fixture.expectClean(path)
    }

    @Test func aThousandSnapshots() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 64 << 20)
        let disk = try openImage(path)
        for index in 0..<1000 {
            try disk.writeBytes([UInt8(truncatingIfNeeded: index), 1], at: UInt64(index % 512) << 16)
            _ = try disk.createSnapshot(request("tag-\(index)"))
        }
        #expect(disk.snapshots.count == 1000)
        try disk.revert(toSnapshot: "500")
        #expect(try disk.readBytes(499 << 16, 2) == [UInt8(truncatingIfNeeded: 499), 1])
        #expect(try disk.readBytes(500 << 16, 2) == [0, 0])
        for index in stride(from: 1, through: 1000, by: 2) { try disk.deleteSnapshot(id: "\(index)") }
        let view = try disk.openSnapshot(id: "1000")
        #expect(try view.readBytes(0, 2) == [UInt8(truncatingIfNeeded: 512), 1])
        try disk.close()
        try fixture.expectClean(path)
        #expect(try fixture.run("qemu-img", ["snapshot", "-l", path]).split(separator: "\n").count == 502)
        #expect(try openImage(path, isReadOnly: true).snapshots.count == 500)
    }

    /// 1 TiB all of which is mapped has 128 MiB of L2 tables; the caches' defaults do not hold them.
    @Test func aReadOfATebibyteKeepsMemorySmall() throws {
        let fixture = try ImageFixture()
        let disk = try openImage(try largeImage(fixture, gibibytes: 1024), isReadOnly: true)
        let before = try residentByteCount()
        var offset: UInt64 = 0
        while offset < disk.byteCount {
            offset = try disk.extents(at: offset, byteCount: disk.byteCount - offset, limit: 256).last?.end ?? .max
        }
        for gibibyte in UInt64(0)..<1024 { _ = try disk.readBytes(gibibyte << 30, 4096) }
        #expect(try residentByteCount() - before < 64 << 20)
        #expect(disk.cachedMetadataByteCount <= 40 << 20)
        try disk.close()
    }

    private func residentByteCount() throws -> Int {
        let words = String(decoding: try Files.readAll("/proc/self/statm"), as: UTF8.self).split(separator: " ")
        return (Int(words[1]) ?? 0) * 4096
    }
}

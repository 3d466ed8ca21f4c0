import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import RawSidecarFormat

@Suite struct SnapshotTests {
    @Test func aSnapshotKeepsWhatIsOverwritten() throws {
        let (image, disk) = try SubjectImage.opened(byteCount: 9216)
        try disk.writeBytes([1, 2, 3], at: 0)
        let first = try disk.createSnapshot(request("a"))
        let second = try disk.createSnapshot(request("b"))
        try disk.writeBytes([4], at: 1)
        #expect(disk.store.contents.withLock { $0.index.count } == 1)
        #expect(try disk.openSnapshot(id: second.id).readBytes(0, 3) == [1, 2, 3])
        #expect(try disk.openSnapshot(id: first.id).readBytes(0, 3) == [1, 2, 3])
        #expect(try image.contents()["disk.raw"]?.prefix(3) == [1, 4, 3])
        try disk.close()
    }

    @Test func withoutASnapshotNothingIsKept() throws {
        let (image, disk) = try SubjectImage.opened(byteCount: 1 << 20)
        let before = try image.contents()["disk.raw.sidecar"]
        try disk.writeBytes(SeededGenerator.bytes(100_000, seed: 1), at: 5)
        #expect(try image.contents()["disk.raw.sidecar"] == before)
        try disk.close()
    }

    @Test func aHundredWritesToAClusterKeepItOnce() throws {
        let (_, disk) = try SubjectImage.opened(byteCount: 1 << 20)
        try disk.writeBytes([UInt8](repeating: 1, count: 1 << 20), at: 0)
        _ = try disk.createSnapshot(request("a"))
        for index in 0..<100 { try disk.writeBytes([2], at: UInt64(index * 100)) }
        #expect(disk.store.contents.withLock { $0.index.count } == 1)
        try disk.close()
    }

    /// What lies ahead of such a writer is kept with what it needs.
    @Test func aWriterThatGoesInOrderWaitsForFewFlushes() throws {
        let image = try SubjectImage(.rawSidecar(), byteCount: 4 << 20)
        try image.write(SeededGenerator.bytes(4 << 20, seed: 1), to: "disk.raw")
        let nodes = try image.nodes()
        let disk = try openImage(nodes)
        let sidecar = try #require(nodes["disk.raw.sidecar"]?.driver as? PlainFile)
        _ = try disk.createSnapshot(request("a"))
        let before = sidecar.flushCount.load(ordering: .relaxed)
        for block in 0..<1024 { try disk.writeBytes([2], at: UInt64(block) * 4096) }
        // 256 clusters.
        #expect(sidecar.flushCount.load(ordering: .relaxed) - before < 20)
        #expect(try disk.openSnapshot(id: "1").readBytes(0, 4 << 20) == SeededGenerator.bytes(4 << 20, seed: 1))
        try disk.close()
    }

    @Test func scatteredWritesKeepOnlyWhatTheyTouch() throws {
        let (_, disk) = try SubjectImage.opened(byteCount: 4 << 20)
        try disk.writeBytes(SeededGenerator.bytes(4 << 20, seed: 1), at: 0)
        _ = try disk.createSnapshot(request("a"))
        for index in 0..<100 { try disk.writeBytes([2], at: UInt64(index * 83 % 256) * 16384) }
        #expect(disk.store.contents.withLock { $0.index.count } == 100)
        try disk.close()
    }

    /// The second flush would be of a raw file in which nothing has changed.
    @Test func aSnapshotOfADiskAtRestWaitsForOneFlush() throws {
        let image = try SubjectImage(.rawSidecar(), byteCount: 1 << 20)
        let nodes = try image.nodes()
        let disk = try openImage(nodes)
        let files = try ["disk.raw", "disk.raw.sidecar"].map { try #require(nodes[$0]?.driver as? PlainFile) }
        func flushes(_ body: () throws -> Void) throws -> [Int] {
            let before = files.map { $0.flushCount.load(ordering: .relaxed) }
            try body()
            return zip(files, before).map { $0.flushCount.load(ordering: .relaxed) - $1 }
        }
        // What was written before the image was opened may not be on the disk yet.
        #expect(try flushes { _ = try disk.createSnapshot(request("a")) } == [1, 1])
        #expect(try flushes { _ = try disk.createSnapshot(request("b")) } == [0, 1])
        try disk.writeBytes([1], at: 0)
        #expect(try flushes { _ = try disk.createSnapshot(request("c")) } == [1, 1])
        try disk.writeBytes([2], at: 0)
        try disk.flush()
        #expect(try flushes { _ = try disk.createSnapshot(request("d")) } == [0, 1])
        for change in [
            { try disk.writeZeroes(at: 0, byteCount: 512, flags: []) }, { try disk.discard(at: 0, byteCount: 512) },
            { try disk.resize(toByteCount: 2 << 20) }, { try disk.revert(toSnapshot: "1") },
        ] {
            try change()
            #expect(try flushes { _ = try disk.createSnapshot(request("e")) } == [1, 1])
        }
        try disk.close()
    }

    @Test func whatIsZeroTakesNoSpace() throws {
        let (image, disk) = try SubjectImage.opened(byteCount: 1 << 30)
        _ = try disk.createSnapshot(request("a"))
        let used = disk.store.usedClusterCount
        try disk.writeZeroes(at: 0, byteCount: 1 << 30, flags: .mayUnmap)
        try disk.writeBytes([1], at: 1 << 29)
        #expect(disk.store.usedClusterCount == used)
        #expect(disk.store.contents.withLock { $0.index.count } == 1)
        #expect(try disk.openSnapshot(id: "1").readBytes(1 << 29, 2) == [0, 0])
        try disk.close()
        withExtendedLifetime(image) {}
    }

    @Test func deletingGivesTheSpaceBack() throws {
        let (image, disk) = try SubjectImage.opened(byteCount: 4 << 20)
        try disk.writeBytes(SeededGenerator.bytes(4 << 20, seed: 1), at: 0)
        let used = disk.store.usedClusterCount
        for round in 0..<3 {
            _ = try disk.createSnapshot(request("s\(round)"))
            try disk.writeBytes(SeededGenerator.bytes(4 << 20, seed: UInt64(2 + round)), at: 0)
        }
        #expect(disk.store.usedClusterCount == used + 3 * 256)
        for id in ["2", "1", "3"] { try disk.deleteSnapshot(id: id) }
        #expect(disk.store.usedClusterCount == used)
        let status = try Files.status(image.path("disk.raw.sidecar"))
        #expect(status.allocatedByteCount < 1 << 20)
        try disk.close()
    }

    @Test func aThousandSnapshotsEachHoldTheirMoment() throws {
        let image = try SubjectImage(.rawSidecar(), byteCount: 1 << 20, storage: .memory)
        var disk = try openImage(try image.nodes())
        for index in 0..<1000 {
            _ = try disk.createSnapshot(request("s\(index)"))
            let bytes = withUnsafeBytes(of: UInt32(index).littleEndian) { Array($0) }
            try disk.writeBytes(bytes, at: UInt64(index % 64) * 16384)
        }
        for isReopened in [false, true] {
            if isReopened {
                try disk.close()
                disk = try openImage(try image.nodes())
            }
            for index in [0, 1, 63, 64, 500, 999] {
                let snapshot = try disk.openSnapshot(id: String(index + 1))
                let cluster = UInt64(index % 64) * 16384
                // The write before the snapshot in the same cluster, 64 snapshots earlier.
                let expected = index < 64 ? 0 : UInt32(index - 64)
                let bytes = try snapshot.readBytes(cluster, 4)
                #expect(bytes == withUnsafeBytes(of: expected.littleEndian) { Array($0) })
            }
        }
        try disk.close()
    }

    @Test func anOlderAndLongerSnapshotKeepsItsTail() throws {
        let image = try SubjectImage(.rawSidecar(), byteCount: 200_000, storage: .memory)
        let disk = try openImage(try image.nodes())
        let content = SeededGenerator.bytes(200_000, seed: 1)
        try disk.writeBytes(content, at: 0)
        _ = try disk.createSnapshot(request("long"))
        try disk.resize(toByteCount: 50_000)
        _ = try disk.createSnapshot(request("short"))
        try disk.resize(toByteCount: 300_000)
        try disk.writeBytes([UInt8](repeating: 7, count: 300_000), at: 0)
        #expect(try disk.openSnapshot(id: "1").readBytes(0, 200_000) == content)
        #expect(try disk.openSnapshot(id: "2").readBytes(0, 50_000) == Array(content.prefix(50_000)))
        try disk.revert(toSnapshot: "1")
        #expect(try disk.readBytes(0, 200_000) == content)
        try disk.revert(toSnapshot: "2")
        #expect(disk.byteCount == 50_000)
        try disk.close()
    }

    @Test func aSnapshotIsReadWhileItsDiskIsOverwritten() throws {
        let image = try SubjectImage(.rawSidecar(), byteCount: 2 << 20)
        let disk = try openImage(try image.nodes())
        let content = SeededGenerator.bytes(2 << 20, seed: 1)
        try disk.writeBytes(content, at: 0)
        _ = try disk.createSnapshot(request("a"))
        let writer = try SystemThread.start(name: "writer") {
            for index in 0..<128 {
                try? disk.writeBytes([UInt8](repeating: 9, count: 16384), at: UInt64(index * 16384))
            }
        }
        let snapshot = try disk.openSnapshot(id: "1")
        for _ in 0..<30 { #expect(try snapshot.readBytes(0, 2 << 20) == content) }
        writer.join()
        #expect(try snapshot.readBytes(0, 2 << 20) == content)
        try disk.close()
    }

    @Test func severalThreadsKeepEachClusterOnce() throws {
        let image = try SubjectImage(.rawSidecar(), byteCount: 2 << 20)
        let disk = try openImage(try image.nodes())
        let content = SeededGenerator.bytes(2 << 20, seed: 1)
        try disk.writeBytes(content, at: 0)
        _ = try disk.createSnapshot(request("a"))
        let threads = try (0..<4).map { number in
            try SystemThread.start(name: "writer") {
                var generator = SeededGenerator(seed: UInt64(number))
                for _ in 0..<100 {
                    let offset = UInt64.random(in: 0..<(2 << 20) - 40_000, using: &generator)
                    try? disk.writeBytes(
                        [UInt8](repeating: 9, count: Int.random(in: 1...40_000, using: &generator)), at: offset)
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(try disk.openSnapshot(id: "1").readBytes(0, 2 << 20) == content)
        try disk.close()
        let again = try openImage(try image.nodes())
        #expect(try again.openSnapshot(id: "1").readBytes(0, 2 << 20) == content)
        try again.close()
    }
}

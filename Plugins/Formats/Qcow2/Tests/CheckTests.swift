import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Findings and repairs of damaged images; `qemu-img check` is the judge.
@Suite struct CheckTests {
    final class Notes: ImageCheckObserver {
        let findings = Locked<[String]>([])
        func found(_ finding: String) { findings.withLock { $0.append(finding) } }
        func progressed(done: UInt64, total: UInt64) {}
        var all: [String] { findings.withLock { $0 } }
    }

    private func check(_ path: String, _ repair: ImageRepair = .nothing) throws -> (ImageCheckResult, [String]) {
        let notes = Notes()
        let node = try fileNode(path)
        let result = try Qcow2Check.run(on: node, repair: repair, observer: notes)
        try node.driver.close()
        return (result, notes.all)
    }

    /// A disk with data, a snapshot, compressed clusters.
    private func make(_ fixture: ImageFixture, _ change: (inout ImageSpec) -> Void = { _ in }) throws -> String {
        let path = fixture.path("a")
        var spec = ImageSpec(options: .init(diskByteCount: 8 << 20))
        change(&spec)
        try spec.make(fixture, path)
        let disk = try spec.open(path)
        try disk.writeBytes(pattern(1_000_000, 1), at: 100_000)
        _ = try disk.createSnapshot(request("one"))
        try disk.writeBytes(pattern(300_000, 2), at: 3_000_000)
        let unit = Int(spec.options.clusterByteCount)
        try [UInt8](repeating: 3, count: 4 * unit).withUnsafeBytes {
            try disk.writeCompressed($0, at: UInt64(64 * unit))
        }
        try disk.close()
        return path
    }

    @Test func whatQEMUCountsIsCounted() throws {
        for clusterByteCount in [4096, 65536] as [UInt64] {
            for hasExtendedL2 in [false, true] where !hasExtendedL2 || clusterByteCount > 4096 {
                let fixture = try ImageFixture()
                let path = try make(fixture) {
                    $0.options.clusterByteCount = clusterByteCount
                    $0.options.hasExtendedL2 = hasExtendedL2
                }
                let (result, findings) = try check(path)
                #expect(findings == [])
                #expect(result.corruptionCount == 0 && result.leakCount == 0)
                let theirs = try fixture.run("qemu-img", ["check", "--output=json", path])
                for (name, value) in [
                    ("total-clusters", result.totalClusterCount), ("allocated-clusters", result.allocatedClusterCount),
                    ("fragmented-clusters", result.fragmentedClusterCount),
                    ("compressed-clusters", result.compressedClusterCount), ("image-end-offset", result.imageEndOffset),
                ] where value > 0 {
                    #expect(theirs.contains("\"\(name)\": \(value)"), "\(name) \(value): \(theirs)")
                }
            }
        }
    }

    /// Damages that `qemu-img check` calls leaks or errors, and what becomes of them.
    @Test func everyMendableDamageIsMended() throws {
        var generator = SeededGenerator(seed: 5)
        for round in 0..<40 {
            let fixture = try ImageFixture()
            let width = UInt64(8) << UInt64(round % 4)
            let path = try make(fixture) {
                $0.options.refcountBits = width
                $0.options.clusterByteCount = 4096
            }
            let before = try fixture.content(path)
            let image = try Qcow2Image.read(try fileNode(path))
            let table = try RefcountTable(
                file: image.file, geometry: image.header.geometry, header: image.header, cacheByteLimit: 1 << 20)
            let file = try PlainFile(path: path)
            // Refcounts at random, too high or too low, and COPIED flags of the L1 table turned over.
            for _ in 0..<Int.random(in: 1...20, using: &generator) {
                let cluster = UInt64.random(in: 0..<(file.byteCount >> 12), using: &generator)
                let value = UInt64.random(in: 0...3, using: &generator)
                try table.set(ClusterRun(first: cluster, count: 1)) { _, _ in value }
            }
            if round % 2 == 1 {
                let l1 = try image.readL1()
                try image.file.writeWords(
                    l1.map { $0 == 0 ? 0 : $0 ^ EntryBits.copied }, at: image.header.l1Offset)
            }
            let (found, _) = try check(path)
            let leaks = try check(path, .leaks).0
            // A refcount that is too high is an error as well where an entry has its COPIED flag; it goes with the leak.
            #expect(leaks.corruptionCount <= found.corruptionCount, "round \(round)")
            #expect(leaks.leakCount == 0 || found.corruptionCount > 0, "round \(round)")
            let (mended, _) = try check(path, .all)
            #expect(mended.corruptionCount == 0 && mended.leakCount == 0, "round \(round)")
            #expect(mended.fixedCorruptionCount == leaks.corruptionCount, "round \(round)")
            try fixture.expectClean(path, "round \(round)")
            #expect(try fixture.content(path) == before, "round \(round)")
        }
    }

    @Test func aRefcountTableThatIsGoneIsMadeAnew() throws {
        let fixture = try ImageFixture()
        let path = try make(fixture)
        let before = try fixture.content(path)
        let image = try Qcow2Image.read(try fileNode(path))
        try image.file.writeWords([0x1234], at: image.header.refcountTableOffset)
        #expect(try check(path).0.corruptionCount > 0)
        let (mended, _) = try check(path, .all)
        #expect(mended.corruptionCount == 0 && mended.leakCount == 0)
        try fixture.expectClean(path)
        #expect(try fixture.content(path) == before)
    }

    @Test func damageThatCannotBeMendedStaysAndIsSaid() throws {
        let fixture = try ImageFixture()
        let path = try make(fixture)
        let image = try Qcow2Image.read(try fileNode(path))
        let l2 = try image.readL1()[0] & EntryBits.offsetMask
        try image.file.writeWords([(1 << 50) | EntryBits.copied], at: HostOffset(l2 + 800))
        let (result, findings) = try check(path, .all)
        #expect(result.corruptionCount > 0)
        #expect(findings.contains { $0.contains("exceeds the end of the file") }, "\(findings)")
    }

    @Test func everyCrashOfARepairIsNoWorse() throws {
        let fixture = try ImageFixture()
        let path = try make(fixture) { $0.options.clusterByteCount = 4096 }
        let before = try fixture.content(path)
        let image = try Qcow2Image.read(try fileNode(path))
        let table = try RefcountTable(
            file: image.file, geometry: image.header.geometry, header: image.header, cacheByteLimit: 1 << 20)
        try table.set(ClusterRun(first: 9, count: 8)) { _, old in old + 1 }
        try table.set(ClusterRun(first: 30, count: 4)) { _, _ in 0 }
        let base = try Files.readAll(path, limit: 1 << 30)
        let recorder = RecordingDriver(try PlainFile(path: path))
        _ = try Qcow2Check.run(on: BlockNode(name: "file", driver: recorder), repair: .all, observer: Notes())
        for count in 0...recorder.calls.count {
            let crashed = fixture.path("crashed")
            try Files.replaceAtomically(
                crashed, contents: RecordingDriver.replay(recorder.calls[..<count], on: base))
            #expect(try fixture.content(crashed) == before)
            let (mended, _) = try check(crashed, .all)
            #expect(mended.corruptionCount == 0 && mended.leakCount == 0, "after \(count) calls")
            try fixture.expectClean(crashed)
        }
    }

    @Test func aDirtyImageIsMendedWhenItIsOpened() throws {
        let fixture = try ImageFixture()
        let path = try make(fixture) { $0.options.hasLazyRefcounts = true }
        let before = try fixture.content(path)
        // As a program with lazy refcounts leaves it when it dies: the newest clusters are not counted.
        try fixture.run(
            "qemu-io", ["-f", "qcow2", "-c", "write -P 9 5M 1M", "-c", "abort", path], mayFail: true)
        let image = try Qcow2Image.read(try fileNode(path))
        #expect(image.header.incompatible.contains(.dirty))
        let disk = try openImage(path)
        #expect(!disk.store.header.incompatible.contains(.dirty))
        var expected = before
        for index in 5 << 20..<6 << 20 { expected[index] = 9 }
        #expect(try disk.readBytes(0, 8 << 20) == expected)
        try disk.writeBytes([1], at: 0)
        try disk.close()
        try fixture.expectClean(path)
    }

    /// As many snapshots share every table: the time must not grow with their number.
    @Test func hostileSnapshotTablesCostNoTime() throws {
        let fixture = try ImageFixture()
        let path = try make(fixture) { $0.options.clusterByteCount = 512 }
        let node = try fileNode(path)
        var bytes = try Files.readAll(path, limit: 1 << 30)
        // 60,000 entries that all name the same large L1 table.
        let table = (UInt64(bytes.count) + 511) & ~511
        bytes.append(contentsOf: repeatElement(0, count: Int(table) - bytes.count + 60_000 * 40))
        for entry in 0..<60_000 {
            bytes.storeBigEndian(UInt64(512), at: Int(table) + entry * 40)
            bytes.storeBigEndian(UInt32(100_000), at: Int(table) + entry * 40 + 8)
        }
        bytes.storeBigEndian(UInt32(60_000), at: 60)
        bytes.storeBigEndian(table, at: 64)
        try Files.replaceAtomically(path, contents: bytes)
        try node.driver.close()
        let start = SystemClock.monotonicNanoseconds()
        _ = try? check(path)
        #expect(SystemClock.monotonicNanoseconds() - start < 60_000_000_000)
    }
}

import ColdframeKit
import ConformanceKit
import Testing

@testable import RawSidecarFormat

/// Sidecars that are damaged, cut short or made to harm: a clear error, or what the checksums prove; never another disk.
@Suite struct HostileSidecarTests {
    private static let byteCount = 20 * 16384

    /// An image with two snapshots and a state, closed; and what it holds.
    private func image() throws -> (SubjectImage, DiskModel) {
        let image = try SubjectImage(.rawSidecar(), byteCount: UInt64(Self.byteCount), storage: .memory)
        var driver = try image.open()
        var model = DiskModel(byteCount: Self.byteCount)
        for operation: DiskOperation in [
            .write(0..<200_000, seed: 1), .create(state: 20_000), .write(10_000..<90_000, seed: 2),
            .create(state: nil), .write(0..<30_000, seed: 3),
        ] {
            try model.apply(operation, to: &driver) { $0 }
        }
        try driver.close()
        return (image, model)
    }

    /// Opens what is there; the disk must be whole, and each snapshot right or refused.
    private func expectRightOrRefused(_ image: SubjectImage, _ model: DiskModel, _ note: String) throws {
        let disk: any BlockDriver
        do { disk = try image.open(isReadOnly: true) } catch is ColdframeError { return }
        #expect(try disk.readBytes(0, Self.byteCount) == model.disk, "\(note)")
        let difference = try model.snapshotDifference(from: disk)
        #expect(difference == nil, "\(note)")
    }

    @Test func aFlippedByteInTheLogIsNoticed() throws {
        let (image, model) = try image()
        let good = try #require(try image.contents()["disk.raw.sidecar"])
        let node = try #require(try image.nodes()["disk.raw.sidecar"])
        let end = try LogScan(OpenedSidecar.readSuperblock(node), SidecarFile(node, clusterBits: 14)).end.position
        var refusedCount = 0
        let positions = Array(stride(from: 16384, to: 16384 + end, by: 7))
        for position in positions {
            var bad = good
            bad[position] ^= 0x10
            try image.write(bad, to: "disk.raw.sidecar")
            try expectRightOrRefused(image, model, "byte \(position)")
            do { try image.open().close() } catch is ColdframeError { refusedCount += 1 }
        }
        // What fills a record up to a multiple of 8 means nothing.
        #expect(refusedCount > positions.count * 9 / 10)
    }

    @Test func aFlippedByteInASuperblockFallsBackToTheOther() throws {
        let (image, model) = try image()
        let good = try #require(try image.contents()["disk.raw.sidecar"])
        for slot in [0, 4096] {
            for position in stride(from: slot, to: slot + 128, by: 5) {
                var bad = good
                bad[position] ^= 1
                try image.write(bad, to: "disk.raw.sidecar")
                try expectRightOrRefused(image, model, "byte \(position)")
            }
        }
    }

    @Test func aSidecarThatWasCutShortIsRefused() throws {
        let (image, model) = try image()
        let good = try #require(try image.contents()["disk.raw.sidecar"])
        for count in stride(from: 0, to: good.count, by: 9999) {
            try image.write(Array(good[..<count]), to: "disk.raw.sidecar")
            try expectRightOrRefused(image, model, "cut to \(count)")
        }
        try image.write(Array(good[..<100_000]), to: "disk.raw.sidecar")
        #expect { try image.open() } throws: { "\($0)".contains("The disk itself is whole") }
    }

    @Test func aDamagedStateIsNotRead() throws {
        let (image, _) = try image()
        var disk = try openImage(try image.nodes(), isReadOnly: true)
        let location = try #require(disk.store.contents.withLock { $0.snapshots.first?.state.first?.location })
        var bytes = try #require(try image.contents()["disk.raw.sidecar"])
        bytes[Int(location) * 16384 + 77] ^= 1
        try image.write(bytes, to: "disk.raw.sidecar")
        disk = try openImage(try image.nodes(), isReadOnly: true)
        let state = try disk.openVMState(ofSnapshot: "1")
        var buffer = [UInt8](repeating: 0, count: 100)
        #expect(throws: ColdframeError.self) { try buffer.withUnsafeMutableBytes { try state.read(into: $0, at: 0) } }
    }

    /// Records with right checksums and wrong content, as a hostile image has them.
    @Test(arguments: [
        Record.next(cluster: 0, clusterCount: 4), .next(cluster: 1, clusterCount: 4),
        .next(cluster: 1000, clusterCount: 4), .next(cluster: 2, clusterCount: .max),
        .deleted(generation: 9), .revertEnded(undo: 1),
        .preserved([PreservedRun(cluster: 0, generation: 1, location: 1, checksums: [0])]),
        .preserved([PreservedRun(cluster: 0, generation: 1, location: 9999, checksums: [0])]),
        .preserved([PreservedRun(cluster: 0, generation: 1, location: .max, checksums: [0, 0])]),
        .stateRuns(generation: 7, [StoredRun(location: 3, checksums: [0])]),
        .stateAttached(generation: 5, byteCount: 1, guestClockNanoseconds: 0, annotation: []),
    ])
    func aHostileRecordIsRefused(record: Record) throws {
        let image = try SubjectImage(.rawSidecar(), byteCount: 1 << 20, storage: .memory)
        let disk = try openImage(try image.nodes())
        _ = try disk.createSnapshot(request("a"))
        try disk.close()
        let node = try #require(try image.nodes()["disk.raw.sidecar"])
        let superblock = try OpenedSidecar.readSuperblock(node)
        let file = SidecarFile(node, clusterBits: superblock.clusterBits)
        let scan = try LogScan(superblock, file)
        var writer = LogWriter(
            file: file, seed: superblock.logSeed, end: scan.end, segments: scan.segments, byteCount: 0)
        try writer.append([record]) { _ in ClusterRun(first: 30, count: 1) }
        #expect(throws: ColdframeError.self) { try image.open(isReadOnly: true) }
    }
}

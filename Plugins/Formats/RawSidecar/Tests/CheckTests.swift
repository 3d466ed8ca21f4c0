import ColdframeKit
import ConformanceKit
import Testing

@testable import RawSidecarFormat

/// What a check finds, and what a repair keeps.
@Suite struct CheckTests {
    private static let byteCount = 20 * 16384

    /// An image with three snapshots, the second with a state, closed; and what it holds.
    private func image() throws -> (SubjectImage, DiskModel) {
        let image = try SubjectImage(.rawSidecar(), byteCount: UInt64(Self.byteCount), storage: .memory)
        var driver = try image.open()
        var model = DiskModel(byteCount: Self.byteCount)
        for operation: DiskOperation in [
            .write(0..<200_000, seed: 1), .create(state: nil), .write(0..<16384, seed: 2), .create(state: 20_000),
            .write(16384..<32768, seed: 3), .create(state: nil), .write(40_000..<90_000, seed: 4),
        ] {
            try model.apply(operation, to: &driver) { $0 }
        }
        try driver.close()
        return (image, model)
    }

    private func check(
        _ image: SubjectImage, repairs: Bool = false
    ) throws -> (report: SidecarCheck.Report, findings: [String]) {
        var findings: [String] = []
        let node = try #require(try image.nodes()["disk.raw.sidecar"])
        let report = try SidecarCheck.run(node, repairs: repairs) { findings.append($0) }
        return (report, findings)
    }

    private func damage(_ image: SubjectImage, at offset: Int) throws {
        var bytes = try #require(try image.contents()["disk.raw.sidecar"])
        bytes[offset] ^= 1
        try image.write(bytes, to: "disk.raw.sidecar")
    }

    private func location(_ image: SubjectImage, ofCluster cluster: UInt64, from generation: UInt32) throws -> Int {
        let disk = try openImage(try image.nodes(), isReadOnly: true)
        let entry = disk.store.contents.withLock { $0.index.entry(of: cluster, from: generation) }
        return Int(try #require(entry).location) * 16384
    }

    @Test func aWholeSidecarHasNoFindings() throws {
        let (image, _) = try image()
        let (report, findings) = try check(image, repairs: true)
        #expect(findings.isEmpty && report.corruptionCount == 0 && report.comparedClusterCount > 5)
    }

    @Test func aDamagedClusterMakesItsReadersSuspectAndNobodyElse() throws {
        let (image, model) = try image()
        try damage(image, at: try location(image, ofCluster: 1, from: 1) + 5)
        #expect(try check(image).report.suspectSnapshots == ["1", "2"])
        let (report, findings) = try check(image, repairs: true)
        #expect(report.fixedCorruptionCount == 1 && findings.count == 1)
        let disk = try openImage(try image.nodes())
        #expect(throws: ColdframeError.self) { try disk.openSnapshot(id: "1") }
        #expect(throws: ColdframeError.self) { try disk.openSnapshot(id: "2") }
        #expect(try disk.openSnapshot(id: "3").readBytes(0, Self.byteCount) == model.snapshots["3"]?.disk)
        #expect(try disk.readBytes(0, Self.byteCount) == model.disk)
        try disk.close()
    }

    @Test func aDamagedLogIsRefusedAndThenMended() throws {
        let (image, model) = try image()
        let node = try #require(try image.nodes()["disk.raw.sidecar"])
        let end = try LogScan(OpenedSidecar.readSuperblock(node), SidecarFile(node, clusterBits: 14)).end
        // In the last record: the ones before it are whole.
        try damage(image, at: Int(end.segment.first) * 16384 + end.position - 20)
        #expect(throws: ColdframeError.self) { try image.open() }
        let (report, findings) = try check(image, repairs: true)
        #expect(report.fixedCorruptionCount == 1, "\(findings)")
        #expect(report.suspectSnapshots == ["1", "2", "3"])
        let disk = try openImage(try image.nodes(), allowsSuspect: true)
        #expect(disk.snapshots.count == 3)
        #expect(try disk.readBytes(0, Self.byteCount) == model.disk)
        try disk.writeBytes([1], at: 0)
        let info = try disk.createSnapshot(request("new"))
        #expect(try disk.openSnapshot(id: info.id).readBytes(0, 1) == [1])
        try disk.close()
        #expect(try check(image).report.corruptionCount == 0)
    }

    @Test func aDamagedStateGoesAndItsSnapshotStays() throws {
        let (image, model) = try image()
        let disk = try openImage(try image.nodes(), isReadOnly: true)
        let state = try #require(disk.store.contents.withLock { $0.snapshots[1].state.first })
        try damage(image, at: Int(state.location) * 16384)
        #expect(try check(image, repairs: true).report.fixedCorruptionCount == 1)
        let mended = try openImage(try image.nodes())
        #expect(mended.snapshots.map(\.vmStateByteCount) == [0, 0, 0])
        #expect(try mended.openSnapshot(id: "2").readBytes(0, Self.byteCount) == model.snapshots["2"]?.disk)
        try mended.close()
    }

    @Test func aSidecarThatWasCutShortKeepsWhatIsLeft() throws {
        let (image, model) = try image()
        let bytes = try #require(try image.contents()["disk.raw.sidecar"])
        let cut = try location(image, ofCluster: 2, from: 3)
        try image.write(Array(bytes.prefix(cut + 100)), to: "disk.raw.sidecar")
        #expect(throws: ColdframeError.self) { try image.open() }
        #expect(try check(image, repairs: true).report.fixedCorruptionCount > 0)
        let disk = try openImage(try image.nodes())
        #expect(try disk.readBytes(0, Self.byteCount) == model.disk)
        for (id, snapshot) in model.snapshots {
            // Right, or refused.
            guard let found = try? disk.openSnapshot(id: id) else { continue }
            #expect(try found.readBytes(0, Self.byteCount) == snapshot.disk)
        }
        try disk.close()
    }
}

import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// A sequence of operations on an image of one kind, of which every crash is tried.
struct CrashScenario: Sendable, CustomTestStringConvertible {
    let name: String
    var diskByteCount = 40 * 4096
    var clusterByteCount: UInt64 = 4096
    var hasExtendedL2 = false
    /// Length of a backing file; 0 for none.
    var baseByteCount = 0
    let operations: [ImageOperation]

    var testDescription: String { name }

    static let all: [CrashScenario] = [
        CrashScenario(
            name: "snapshots",
            operations: [
                .write(0..<50_000, seed: 1), .create(state: nil), .write(10_000..<30_000, seed: 2), .flush,
                .create(state: 30_000), .write(0..<4096, seed: 3), .zero(4096..<20_000, .mayUnmap), .flush,
                .revert(choice: 0), .write(100..<9_000, seed: 4), .create(state: nil), .delete(choice: 0),
                .discard(0..<100_000), .flush, .delete(choice: 1), .write(0..<100_000, seed: 5), .delete(choice: 0),
                .flush,
            ]),
        CrashScenario(
            name: "resize", clusterByteCount: 512,
            operations: [
                .write(0..<60_000, seed: 1), .flush, .resize(200 * 512), .create(state: 3000),
                .write(40_000..<90_000, seed: 2), .resize(600 * 512), .write(150_000..<300_000, seed: 3), .flush,
                .resize(100 * 512), .resize(400 * 512), .write(50_000..<200_000, seed: 4), .create(state: nil),
                .revert(choice: 0), .resize(20 * 512), .flush, .delete(choice: 0), .resize(64 * 512),
            ]),
        CrashScenario(
            name: "compressed",
            operations: [
                .writeCompressed(0..<16 * 4096, seed: 1), .flush, .write(5000..<9000, seed: 2),
                .writeCompressed(4 * 4096..<8 * 4096, seed: 3), .create(state: nil),
                .writeCompressed(0..<12 * 4096, seed: 4), .discard(0..<3 * 4096), .flush, .create(state: 5000),
                .write(20_000..<30_000, seed: 5), .revert(choice: 0), .writeCompressed(8 * 4096..<40 * 4096, seed: 6),
                .delete(choice: 0), .flush, .delete(choice: 0), .writeCompressed(0..<4 * 4096, seed: 7), .flush,
            ]),
        CrashScenario(
            name: "subclusters", diskByteCount: 20 * 16384, clusterByteCount: 16384, hasExtendedL2: true,
            operations: [
                .write(1000..<3000, seed: 1), .write(20_000..<60_000, seed: 2), .flush, .zero(22_000..<30_000, []),
                .create(state: nil), .write(5_000..<5_100, seed: 3), .zero(0..<2048, .mayUnmap),
                .write(600..<700, seed: 4), .discard(16_384..<49_152), .flush, .create(state: 20_000),
                .write(100_000..<150_000, seed: 5), .revert(choice: 0), .write(0..<512, seed: 6), .delete(choice: 0),
                .flush, .zero(100_352..<120_832, []), .delete(choice: 0), .write(110_000..<110_001, seed: 7), .flush,
            ]),
        CrashScenario(
            name: "overlay", baseByteCount: 30 * 4096 + 512,
            operations: [
                .write(100..<200, seed: 1), .create(state: nil), .write(20_000..<60_000, seed: 2), .flush,
                .discard(8192..<50_000), .zero(100_000..<110_000, .mayUnmap), .create(state: nil),
                .write(120_000..<130_000, seed: 3), .revert(choice: 0), .flush, .resize(20 * 4096),
                .resize(36 * 4096), .delete(choice: 1), .write(0..<30_000, seed: 4), .delete(choice: 0), .flush,
            ]),
    ]

    /// Makes the image in `fixture`.
    func make(_ fixture: ImageFixture, _ path: String) throws {
        let node = try fileNode(path, creates: true)
        var options = Qcow2Create.Options(diskByteCount: UInt64(diskByteCount))
        options.clusterByteCount = clusterByteCount
        options.hasExtendedL2 = hasExtendedL2
        if baseByteCount > 0 {
            let base = try Descriptor.open(fixture.path("base"), [.writeOnly, .create, .truncate])
            try base.writeAll(pattern(baseByteCount, 77))
            base.close()
            options.backingFilename = fixture.path("base")
            options.backingFormat = "raw"
        }
        try Qcow2Create.write(options, into: node)
        try node.driver.close()
    }

    func open(_ fixture: ImageFixture, _ node: BlockNode) throws -> Qcow2Driver {
        try openImage(node, backing: baseByteCount > 0 ? try fileNode(fixture.path("base"), isReadOnly: true) : nil)
    }

    var model: ImageModel {
        var disk = [UInt8](repeating: 0, count: diskByteCount)
        let shown = pattern(baseByteCount, 77).prefix(diskByteCount)
        disk.replaceSubrange(0..<shown.count, with: shown)
        return ImageModel(disk: disk, clusterByteCount: Int(clusterByteCount), backingByteCount: baseByteCount)
    }
}

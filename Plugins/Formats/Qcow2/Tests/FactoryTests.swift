import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

@testable import Qcow2Format

/// Stands for the graph: `file` children by name are files of the test's, `backing` children other images.
@AgentActor
private final class TestGraph: OpenContext, CreateContext {
    let nodeName = "node"
    var isReadOnly = false
    var autoReadOnly = false
    var nodes: [String: BlockNode] = [:]
    var asked: [String] = []

    func child(_ name: String, _ reference: BlockdevRef, role: ChildRole) async throws -> BlockNode {
        guard case .reference(let node) = reference, let found = nodes[node] else {
            throw ColdframeError(.notFound, "no such node")
        }
        asked.append("\(name)=\(node)")
        return found
    }

    func bitmap(named name: String, node nodeName: String) throws -> DirtyBitmap {
        throw ColdframeError(.notFound, "Dirty bitmap '\(name)' not found")
    }
    func backingNamedByImage(filename: String, format: String?, imageFilename: String) async throws -> BlockNode {
        asked.append("named \(filename) \(format ?? "-")")
        guard let found = nodes["base"] else { throw ColdframeError(.permission, "not allowed") }
        return found
    }

    func dataFileNamedByImage(filename: String, imageFilename: String) async throws -> BlockNode {
        asked.append("data \(filename)")
        guard let found = nodes["data"] else { throw ColdframeError(.permission, "not allowed") }
        return found
    }

    func snapshot(ofChild name: String, id: String?, tag: String?) async throws -> any SnapshotLease {
        throw ColdframeError(.notFound, "There are no snapshots here")
    }
    func corruptionReport() -> @Sendable (ImageCorruption) -> Void { { _ in } }

    func target(_ reference: BlockdevRef) async throws -> BlockNode {
        try await child("target", reference, role: .image)
    }
    func advance(byteCount: UInt64) {}
}

@Suite @AgentActor struct FactoryTests {
    private func options(_ branch: BlockdevOptionsQcow2) -> BlockdevOptions {
        BlockdevOptions(driver: "qcow2", branch: branch)
    }

    private func overlay(_ fixture: ImageFixture) throws -> TestGraph {
        try createImage(fixture.path("base"), byteCount: 1 << 20)
        try createImage(fixture.path("top"), byteCount: 1 << 20, backingFilename: "base")
        let base = try openImage(fixture.path("base"))
        try base.writeBytes([7], at: 0)
        let graph = TestGraph()
        graph.nodes = ["top": try fileNode(fixture.path("top")), "base": BlockNode(name: "base", driver: base)]
        return graph
    }

    @Test func theBackingFileThatTheImageNamesIsAskedFor() async throws {
        let fixture = try ImageFixture()
        let graph = try overlay(fixture)
        let disk = try await Qcow2Factory().open(options(.init(file: .reference("top"))), context: graph)
        #expect(graph.asked == ["file=top", "named base qcow2"])
        #expect(try disk.readBytes(0, 1) == [7])
        try disk.close()
    }

    @Test func nullMeansNoBackingFile() async throws {
        let fixture = try ImageFixture()
        let graph = try overlay(fixture)
        let disk = try await Qcow2Factory().open(
            options(.init(file: .reference("top"), backing: .null(JSONNull()))), context: graph)
        #expect(graph.asked == ["file=top"])
        #expect(try disk.readBytes(0, 1) == [0])
        try disk.close()
    }

    @Test func anImageThatMayNotBeWrittenOpensReadOnlyIfThatIsAllowed() async throws {
        let fixture = try ImageFixture()
        try createImage(fixture.path("a"), byteCount: 1 << 20)
        let damaged = try fileNode(fixture.path("a"))
        try damaged.driver.writeBytes([2], at: 79)
        let graph = TestGraph()
        graph.nodes = ["a": try fileNode(fixture.path("a"))]
        await #expect(throws: ColdframeError.self) {
            _ = try await Qcow2Factory().open(options(.init(file: .reference("a"))), context: graph)
        }
        graph.autoReadOnly = true
        let disk = try await Qcow2Factory().open(options(.init(file: .reference("a"))), context: graph)
        #expect(disk.isReadOnly)
    }

    @Test func contradictingCacheSizesAreRefused() throws {
        #expect(throws: ColdframeError.self) {
            try Qcow2Factory.settings(
                .init(file: .reference("a"), cacheSize: 1, l2CacheSize: 1, refcountCacheSize: 1))
        }
        #expect(throws: ColdframeError.self) {
            try Qcow2Factory.settings(.init(file: .reference("a"), cacheSize: 1, l2CacheSize: 2))
        }
        #expect(throws: ColdframeError.self) {
            try Qcow2Factory.settings(.init(file: .reference("a"), l2CacheSize: -1))
        }
        let settings = try Qcow2Factory.settings(.init(file: .reference("a"), cacheSize: 1 << 20, l2CacheSize: 1 << 19))
        #expect(settings.refcountCacheByteLimit == 1 << 19)
    }

    @Test func createWritesAnImageThatQEMUAccepts() async throws {
        let fixture = try ImageFixture()
        let graph = TestGraph()
        // Old content must not show through; the backing file must exist for `qemu-img`.
        try Files.replaceAtomically(fixture.path("a"), contents: pattern(1_000_000, 1))
        try Files.replaceAtomically(fixture.path("base.raw"), contents: [UInt8](repeating: 0, count: 512))
        graph.nodes = ["a": try fileNode(fixture.path("a"))]
        let branch = BlockdevCreateOptionsQcow2(
            file: .reference("a"), size: 10 << 20, version: .v2, backingFile: "base.raw", backingFmt: "raw")
        try await Qcow2Factory().create(BlockdevCreateOptions(driver: "qcow2", branch: branch), context: graph)
        try fixture.expectClean(fixture.path("a"))
        #expect(try fixture.run("qemu-img", ["info", fixture.path("a")]).contains("compat: 0.10"))
    }

    @Test func whatCreateDoesNotKnowIsRefusedBeforeAnythingIsTouched() async throws {
        let graph = TestGraph()
        for branch in [
            BlockdevCreateOptionsQcow2(file: .reference("a"), size: 512, preallocation: .full),
            BlockdevCreateOptionsQcow2(file: .reference("a"), extendedL2: true, size: 512),
            BlockdevCreateOptionsQcow2(file: .reference("a"), size: 512, compressionType: .zstd),
            BlockdevCreateOptionsQcow2(file: .reference("a"), size: 512, backingFmt: "raw"),
        ] {
            await #expect(throws: ColdframeError.self) {
                try await Qcow2Factory().create(BlockdevCreateOptions(driver: "qcow2", branch: branch), context: graph)
            }
        }
        #expect(graph.asked.isEmpty)
    }
}

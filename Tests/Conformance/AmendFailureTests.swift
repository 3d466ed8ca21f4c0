import ColdframeKit
import ConformanceKit
import FileProtocol
import LinuxSystem
import QAPI
import Qcow2Format
import Testing

@testable import AgentCore

/// An amendment of a node that fails anywhere: the node and its bitmaps are as before or as they were to be, and go on.
@AgentActor
@Suite("Amendments that fail")
struct AmendFailureTests {
    /// Files whose calls can be told to fail.
    private final class FaultyFiles: BlockDriverFactory {
        let driverName = "file"
        let isFormat = false
        let path: String
        private let opened = Locked<[FaultyDriver]>([])

        init(_ path: String) { self.path = path }
        /// The one that was opened last.
        var file: FaultyDriver? { opened.withLock { $0.last } }

        func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
            let file = FaultyDriver(try PlainFile(path: path))
            opened.withLock { $0.append(file) }
            return file
        }
    }

    private static let old: UInt64 = 8 << 20
    private static let cluster: UInt64 = 4096

    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let size: UInt64
        /// Version 2 has no room for a stored bitmap.
        var isStored = true
        var options: BlockdevAmendOptionsQcow2
        var testDescription: String { name }

        static var all: [Case] {
            [
                // The L1 table and the bitmaps' tables grow.
                Case(name: "grow", size: 40 << 20, options: .init(size: 40 << 20)),
                Case(name: "shrink", size: 3 << 20, options: .init(size: 3 << 20)),
                Case(
                    name: "refcounts and grow", size: 9 << 20,
                    options: .init(lazyRefcounts: true, refcountBits: 8, size: 9 << 20)),
                Case(
                    name: "grow and version 2", size: 9 << 20, isStored: false,
                    options: .init(version: .v2, size: 9 << 20)),
            ]
        }
    }

    /// An image whose node has two bitmaps with one dirty cluster each, `kept` being persistent if it `isStored`.
    private func node(_ folder: ToolFolder, isStored: Bool) async throws -> (Graph, GraphNode, FaultyFiles) {
        let path = folder.path("a")
        let tool = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(Self.cluster)", path, "\(Self.old)"]
        let made = try folder.run("qemu-img", tool)
        try #require(made.status == 0, "\(made.output)")
        let files = FaultyFiles(path)
        let format = try #require(ModulesUnderTest.all.flatMap(\.blockDrivers).first { $0.driverName == "qcow2" })
        let graph = Graph(factories: [files, format], gate: ImageReferenceGate(allowedFolders: []))
        let file = BlockdevOptions(driver: "file", branch: BlockdevOptionsFile(filename: path))
        try await graph.add(
            BlockdevOptions(driver: "qcow2", nodeName: "n", branch: BlockdevOptionsQcow2(file: .definition(file))))
        let bitmaps = BitmapRegistry(graph: graph)
        for (name, isPersistent) in [("kept", isStored), ("fleeting", false)] {
            try await bitmaps.add(
                BlockDirtyBitmapAdd(node: "n", name: name, granularity: UInt32(Self.cluster), persistent: isPersistent))
        }
        let node = try graph.find(nodeOnly: "n")
        try write(node, 1, at: 1 << 20)
        try node.block.flush()
        return (graph, node, files)
    }

    private func write(_ node: GraphNode, _ value: UInt8, at offset: UInt64) throws {
        let bytes = [UInt8](repeating: value, count: Int(Self.cluster))
        try bytes.withUnsafeBytes { try node.block.write($0, at: offset) }
    }

    private func value(_ node: GraphNode, at offset: UInt64) throws -> Set<UInt8> {
        var bytes = [UInt8](repeating: 0xEE, count: Int(Self.cluster))
        try bytes.withUnsafeMutableBytes { try node.block.read(into: $0, at: offset) }
        return Set(bytes)
    }

    /// What the bitmaps say, oldest first.
    private func dirty(_ node: GraphNode) -> [String: [UInt64]] {
        var found: [String: [UInt64]] = [:]
        for bitmap in node.block.bitmaps.all {
            found[bitmap.name ?? ""] = bitmap.withBits { bits in
                var offsets: [UInt64] = []
                while let run = bits.nextDirty(from: offsets.last.map { $0 + Self.cluster } ?? 0) {
                    offsets.append(run.lowerBound)
                }
                return offsets
            }
        }
        return found
    }

    private func expectGoingOn(_ node: GraphNode, _ item: Case, _ note: String) throws {
        let size = node.block.byteCount
        #expect(size == Self.old || size == item.size, "\(note)")
        #expect(dirty(node) == ["kept": [1 << 20], "fleeting": [1 << 20]], "\(note)")
        for bitmap in node.block.bitmaps.all {
            #expect(bitmap.diskByteCount == size, "\(note): \(bitmap.name ?? "")")
            let state = bitmap.state
            #expect(state.isRecording && !state.isBusy && !state.isInconsistent && !state.isReadOnly, "\(note)")
        }
        #expect(try value(node, at: 1 << 20) == [1], "\(note)")
        // At the end of the disk, wherever that is now.
        try write(node, 2, at: size - Self.cluster)
        try node.block.flush()
        #expect(try value(node, at: size - Self.cluster) == [2], "\(note)")
        #expect(
            dirty(node) == ["kept": [1 << 20, size - Self.cluster], "fleeting": [1 << 20, size - Self.cluster]],
            "\(note)")
    }

    /// Whatever is in the image when it is closed is what QEMU finds in it.
    private func expectWhole(_ folder: ToolFolder, _ item: Case, _ byteCount: UInt64, _ note: String) throws {
        let check = try folder.run("qemu-img", ["check", "-f", "qcow2", folder.path("a")])
        // Clusters that a failed call kept are leaks at worst.
        #expect([0, 3].contains(check.status), "\(note): \(check.output)")
        let told = try folder.run("qemu-img", ["info", "--output=json", folder.path("a")]).output
        #expect(told.contains("\"virtual-size\": \(byteCount)"), "\(note): \(told)")
        #expect(told.contains("\"name\": \"kept\"") == item.isStored && !told.contains("in-use"), "\(note): \(told)")
    }

    private func refusal(of node: GraphNode, _ graph: Graph, _ item: Case) async -> String? {
        do {
            try await graph.amend(node, BlockdevAmendOptions(driver: "qcow2", branch: item.options)) { _, _ in }
            return nil
        } catch { return ColdframeError(wrapping: error).message }
    }

    @Test(arguments: Case.all) func anyFailedCallLeavesANodeThatGoesOn(item: Case) async throws {
        var index = 0
        var sizesOfFailures: Set<UInt64> = []
        while true {
            let folder = try ToolFolder()
            let (graph, node, files) = try await node(folder, isStored: item.isStored)
            let file = try #require(files.file)
            file.fail(call: index)
            let note = "\(item.name), call \(index)"
            let text = await refusal(of: node, graph, item)
            let isReached = file.callCount > index
            file.heal()
            if text == nil {
                #expect(node.block.byteCount == item.size, "\(note)")
            } else {
                sizesOfFailures.insert(node.block.byteCount)
            }
            try expectGoingOn(node, item, "\(note): \(text ?? "done")")
            let byteCount = node.block.byteCount
            try await graph.remove(nodeName: "n")
            try expectWhole(folder, item, byteCount, note)
            if !isReached {
                #expect(text == nil, "\(note)")
                break
            }
            index += 1
        }
        #expect(sizesOfFailures == [Self.old, item.size], "\(item.name): \(index) calls")
    }
}

import ColdframeKit
import ConformanceKit
import FileProtocol
import LinuxSystem
import QAPI
import Qcow2Format
import Testing

@testable import AgentCore

/// The files of a node that gets another one.
@AgentActor
@Suite("Children of a node that is reopened", .timeLimit(.minutes(2)))
struct ReopenedChildrenTests {
    /// Files whose flushes wait while they are told to.
    private final class SlowFiles: BlockDriverFactory {
        let driverName = "file"
        let isFormat = false
        private let state = Locked((isHeld: false, isWaiting: false))
        private let changed = ConditionVariable()

        func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
            let branch: BlockdevOptionsFile = try own(options.branch)
            return HookedDriver(try PlainFile(path: branch.filename)) { request, _ in
                if request == .flush { self.pass() }
            }
        }

        private func pass() {
            state.withLock { $0.isWaiting = $0.isHeld }
            changed.wait { self.state.withLock { !$0.isHeld } }
        }

        func hold() { state.withLock { $0.isHeld = true } }
        func letGo() {
            state.withLock { $0.isHeld = false }
            changed.broadcast()
        }
        var isWaiting: Bool { state.withLock { $0.isWaiting } }
    }

    private static func disk(_ name: String, on file: String) -> BlockdevOptions {
        BlockdevOptions(driver: "qcow2", nodeName: name, branch: BlockdevOptionsQcow2(file: .reference(file)))
    }

    /// A disk `hd` in the image `a`, and another file `b`.
    private func graph(_ files: SlowFiles, _ folder: ToolFolder, b format: String) async throws -> Graph {
        let qcow2 = try #require(ModulesUnderTest.all.flatMap(\.blockDrivers).first { $0.driverName == "qcow2" })
        let graph = Graph(factories: [files, qcow2], gate: ImageReferenceGate(allowedFolders: []))
        for (name, format) in [("a", "qcow2"), ("b", format)] {
            try folder.require("qemu-img", "create", "-q", "-f", format, folder.path(name), "1M")
            let branch = BlockdevOptionsFile(filename: folder.path(name))
            try await graph.add(BlockdevOptions(driver: "file", nodeName: name, branch: branch))
        }
        try await graph.add(Self.disk("hd", on: "a"))
        return graph
    }

    @Test("are nobody else's before the driver that writes to them is closed", arguments: [true, false])
    func areHeld(_ goesWell: Bool) async throws {
        let folder = try ToolFolder()
        let files = SlowFiles()
        let graph = try await graph(files, folder, b: goesWell ? "qcow2" : "raw")
        let disk = try graph.find(nodeOnly: "hd")
        let reopening = Reopening(graph: graph)
        try reopening.place(.init(node: disk, options: Self.disk("hd", on: "b"), file: try graph.find(nodeOnly: "b")))
        files.hold()
        let running = Task { try await reopening.run() }
        while !files.isWaiting { try await Task.sleep(nanoseconds: 1_000_000) }
        await #expect(throws: ColdframeError.self) { try await graph.remove(nodeName: "a") }
        await #expect(throws: ColdframeError.self) { try await graph.add(Self.disk("other", on: "a")) }
        files.letGo()
        if goesWell {
            try await running.value
        } else {
            await #expect(throws: ColdframeError.self) { try await running.value }
        }
        let (mine, free) = goesWell ? ("b", "a") : ("a", "b")
        #expect(disk.child("file")?.name == mine)
        await #expect(throws: ColdframeError.self) { try await graph.remove(nodeName: mine) }
        try await graph.remove(nodeName: free)
        try await graph.remove(nodeName: "hd")
        try await graph.remove(nodeName: mine)
        try folder.require("qemu-img", "check", "-q", folder.path("a"))
    }
}

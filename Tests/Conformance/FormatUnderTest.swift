import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

/// One format of the agent, opened and made through its factory as `blockdev-add` and `blockdev-create` do.
struct FormatUnderTest: Sendable, CustomTestStringConvertible {
    let factory: any BlockDriverFactory
    var name: String { factory.driverName }
    var testDescription: String { name }

    /// All formats of all modules.
    static let all: [FormatUnderTest] = ModulesUnderTest.all.flatMap(\.blockDrivers).filter {
        $0.isFormat && !needsMore.contains($0.driverName)
    }.map(FormatUnderTest.init)

    /// Drivers that cannot be opened over a file alone: filters that need a group or a second disk have tests of their
    /// own.
    private static let needsMore: Set<String> = ["throttle", "copy-before-write", "preallocate"]

    /// What an image has beside `file`, for formats with more than one file.
    private static let companions = ["raw-sidecar": ["sidecar"]]

    var files: [String] { ["file"] + (Self.companions[name] ?? []) }

    private var references: JSONObject {
        var references: JSONObject = ["driver": .string(name)]
        for file in files { references[file] = .string(file) }
        return references
    }

    /// The format as the campaigns of the test kit want it. Not to be used on a thread of the concurrency runtime.
    var subject: DiskSubject {
        DiskSubject(
            name: name, files: files,
            create: { nodes, byteCount in try self.create(nodes, byteCount) },
            open: { nodes, isReadOnly in try self.open(nodes, isReadOnly: isReadOnly) })
    }

    func open(
        _ nodes: [String: BlockNode], isReadOnly: Bool = false, asked: (@Sendable (String) -> Void)? = nil
    ) throws -> any BlockDriver {
        var members = references
        members["discard"] = "unmap"
        let options = try BlockdevOptions(QAPIInput(.object(members)))
        return try waitFor { @AgentActor in
            try await self.factory.open(options, context: StandInGraph(nodes, isReadOnly: isReadOnly, asked: asked))
        }
    }

    /// Through the factory; for a format that makes none, `qemu-img` does, and for one that it does not know either the
    /// file is the disk.
    private func create(_ nodes: [String: BlockNode], _ byteCount: UInt64) throws {
        guard BranchTable.current.type(of: "BlockdevCreateOptions", value: name) != nil else {
            return try createElsewhere(nodes, byteCount)
        }
        var members = references
        members["size"] = .integer(Int64(byteCount))
        let options = try BlockdevCreateOptions(QAPIInput(.object(members)))
        try waitFor { @AgentActor in
            try await self.factory.create(options, context: StandInGraph(nodes, isReadOnly: false, asked: nil))
        }
    }

    private func createElsewhere(_ nodes: [String: BlockNode], _ byteCount: UInt64) throws {
        guard let file = nodes["file"], let resizable = file.driver as? any Resizable else { return }
        let directory = try Files.temporaryDirectory(prefix: "conformance")
        defer { try? Files.removeTree(directory) }
        let path = "\(directory)/image"
        let process = try ProcessControl.spawn(
            SpawnRequest(
                path: "qemu-img", arguments: ["create", "-q", "-f", name, path, String(byteCount)], descriptors: []))
        guard case .exited(0) = try ProcessControl.wait(process) else {
            return try resizable.resize(toByteCount: byteCount)
        }
        let bytes = try Files.readAll(path, limit: 64 << 20)
        try resizable.resize(toByteCount: UInt64(bytes.count))
        try file.driver.writeBytes(bytes, at: 0)
    }
}

/// Stands for the graph: children are the test's nodes by name, and every wish is told.
@AgentActor
private final class StandInGraph: OpenContext, CreateContext {
    let nodeName = "node"
    let isReadOnly: Bool
    let autoReadOnly = true
    private let nodes: [String: BlockNode]
    private let asked: (@Sendable (String) -> Void)?

    init(_ nodes: [String: BlockNode], isReadOnly: Bool, asked: (@Sendable (String) -> Void)?) {
        self.nodes = nodes
        self.isReadOnly = isReadOnly
        self.asked = asked
    }

    func child(_ name: String, _ reference: BlockdevRef, role: ChildRole) async throws -> BlockNode {
        guard case .reference(let node) = reference, let found = nodes[node] else {
            asked?("child \(name)")
            throw ColdframeError(.notFound, "The image asks for a child '\(name)' that nobody named")
        }
        return found
    }

    func bitmap(named name: String, node nodeName: String) throws -> DirtyBitmap {
        throw ColdframeError(.notFound, "The image asks for a bitmap that nobody named")
    }

    func backingNamedByImage(filename: String, format: String?, imageFilename: String) async throws -> BlockNode {
        asked?("backing \(filename)")
        throw ColdframeError(.permission, "The gate is shut: '\(filename)' is not followed")
    }

    func dataFileNamedByImage(filename: String, imageFilename: String) async throws -> BlockNode {
        asked?("data file \(filename)")
        throw ColdframeError(.permission, "The gate is shut: '\(filename)' is not followed")
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

/// Runs asynchronous work from a thread that may block, and waits for it.
private func waitFor<Value: Sendable>(_ work: @escaping @Sendable () async throws -> Value) throws -> Value {
    let outcome = Outcome<Value>()
    Task {
        do { outcome.set(.success(try await work())) } catch { outcome.set(.failure(error)) }
    }
    return try outcome.wait().get()
}

/// Runs a campaign on a thread that may block.
func onBlockingThread(_ body: @escaping @Sendable () throws -> Void) async throws {
    try await BlockingPool.shared.run { try body() }
}

import ColdframeKit
import LinuxSystem
import QAPI

/// Stands for the graph: children are the test's nodes by name, and every wish is told.
@AgentActor
final class StandInGraph: OpenContext, CreateContext {
    let nodeName = "node"
    let isReadOnly: Bool
    let autoReadOnly = true
    private let nodes: [String: BlockNode]
    private let asked: (@Sendable (String) -> Void)?
    /// The nodes that hold the disk which the driver shows.
    private(set) var shownNames: [String] = []

    init(_ nodes: [String: BlockNode], isReadOnly: Bool = false, asked: (@Sendable (String) -> Void)? = nil) {
        self.nodes = nodes
        self.isReadOnly = isReadOnly
        self.asked = asked
    }

    func child(_ name: String, _ reference: BlockdevRef, role: ChildRole) async throws -> BlockNode {
        guard case .reference(let node) = reference, let found = nodes[node] else {
            asked?("child \(name)")
            throw ColdframeError(.notFound, "The image asks for a child '\(name)' that nobody named")
        }
        if role == .filtered || role == .replica { shownNames.append(node) }
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
func waitFor<Value: Sendable>(_ work: @escaping @Sendable () async throws -> Value) throws -> Value {
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

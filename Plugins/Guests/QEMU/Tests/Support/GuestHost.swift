import ColdframeKit
import Logging
import NBDExport
import QAPI
import QMPWire

/// As much of the agent as a guest needs: its folders, one disk, a real server for it, and ears.
@AgentActor
final class GuestHost: AgentServices {
    nonisolated let agentName: String? = "test"
    nonisolated let logger = Logger(label: "test")
    private let folder: String
    private let nodes: [String: BlockNode]
    private(set) var events: [String] = []
    private(set) var deathReason: String?
    private(set) var claimCount = 0
    /// Claims that may write now.
    private(set) var writerCount = 0
    private(set) var privateNodeCount = 0

    init(folder: String, nodes: [BlockNode]) {
        self.folder = folder
        self.nodes = Dictionary(uniqueKeysWithValues: nodes.map { ($0.name, $0) })
    }

    func runtimeDirectory(for module: String) -> String { folder }
    func stateDirectory(for module: String) -> String { folder }

    func node(named name: String) throws -> BlockNode {
        guard let node = nodes[name] else {
            throw ColdframeError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'")
        }
        return node
    }

    func bitmap(
        named name: String, node nodeName: String, throughBacking: Bool
    ) throws -> (node: BlockNode, bitmap: DirtyBitmap) {
        throw ColdframeError(.notFound, "Dirty bitmap '\(name)' not found")
    }
    func addPrivateNode(name: String, driver: any BlockDriver) -> BlockNode {
        privateNodeCount += 1
        return BlockNode(name: name, driver: driver)
    }

    func removePrivateNode(name: String) { privateNodeCount -= 1 }

    func claim(_ node: BlockNode, asDisk name: String, of holder: String, isWriter: Bool) -> any NodeClaim {
        claimCount += 1
        node.setParked(!isWriter)
        if isWriter { writerCount += 1 }
        return Claim(node, isWriter: isWriter) { [weak self] change, writers in
            self?.claimCount += change
            self?.writerCount += writers
        }
    }

    func startDiskServer(socketPath: String) async throws -> any DiskServer {
        guard let factory = NBDExportModule.module.diskServer else {
            throw ColdframeError(.unsupported, "No module has a server for disks")
        }
        return try await factory.start(socketPath: socketPath, services: self)
    }

    func forwardGuestEvent(_ event: JSONObject) { events.append(event["event"]?.stringValue ?? "?") }
    func guestDied(id: String, reason: String) { deathReason = reason }
    func postEvent(_ name: String, data: JSONObject?) {}

    // A guest asks for none of these.
    func addBlockdev(_ options: BlockdevOptions) throws { throw Self.unasked }
    func addExport(_ options: BlockExportOptions) throws { throw Self.unasked }
    func removeExport(id: String) throws { throw Self.unasked }
    func exportURIs(of node: BlockNode) -> [String] { [] }
    func snapshotSets() -> [SnapshotSet] { [] }
    func observeCatalogue(
        _ observer: @escaping @Sendable @AgentActor ([SnapshotSet]) -> Void
    ) -> any ObservationToken { Token() }
    func openSnapshot(nodeName: String, snapshotID: String, holder: String) throws -> any SnapshotLease {
        throw Self.unasked
    }

    private static var unasked: ColdframeError { ColdframeError(.unsupported, "not asked for by a guest") }
}

@AgentActor
private final class Claim: NodeClaim {
    private let node: BlockNode
    private var isWriter: Bool
    private let count: @AgentActor (_ claims: Int, _ writers: Int) -> Void

    init(_ node: BlockNode, isWriter: Bool, count: @escaping @AgentActor (Int, Int) -> Void) {
        (self.node, self.isWriter, self.count) = (node, isWriter, count)
    }

    var nodeName: String { node.name }

    func setWriter(_ isWriter: Bool) {
        count(0, (isWriter ? 1 : 0) - (self.isWriter ? 1 : 0))
        self.isWriter = isWriter
        node.setParked(!isWriter)
    }

    func release() { count(-1, isWriter ? -1 : 0) }
}

private final class Token: ObservationToken {
    func cancel() {}
}

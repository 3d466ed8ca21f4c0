import ColdframeKit
import Logging
import QAPI
import QMPWire

/// What modules get from the core: each method goes to the part that owns the matter.
@AgentActor
final class CoreServices: AgentServices {
    nonisolated let agentName: String?
    nonisolated let logger: Logger
    private let directories: AgentDirectories?
    private unowned let agent: Agent

    init(agent: Agent, name: String?, directories: AgentDirectories?, logger: Logger) {
        self.agent = agent
        agentName = name
        self.directories = directories
        self.logger = logger
    }

    func runtimeDirectory(for module: String) throws -> String {
        try AgentDirectories.make(try named().runtime + "/" + module)
    }

    func stateDirectory(for module: String) throws -> String {
        try AgentDirectories.make(try named().state + "/" + module)
    }

    private func named() throws -> AgentDirectories {
        guard let directories else {
            throw ColdframeError(.invalidArgument, "An agent without a name has no folders: start it with --name NAME")
        }
        return directories
    }

    // MARK: Graph and exports

    func node(named name: String) throws -> BlockNode {
        // Each user has a view of its own, which follows the use when the graph changes.
        BlockNode(try agent.graph.find(nodeOnly: name).body)
    }

    func bitmap(
        named name: String, node nodeName: String, throughBacking: Bool
    ) throws -> (node: BlockNode, bitmap: DirtyBitmap) {
        let bitmaps = BitmapRegistry(graph: agent.graph)
        let found =
            throughBacking
            ? try bitmaps.find(name, visibleAt: try agent.graph.find(nodeOnly: nodeName))
            : try bitmaps.find(node: nodeName, name: name)
        try BitmapRegistry.check(found.bitmap, against: .use)
        return (found.node.block, found.bitmap)
    }

    func addPrivateNode(name: String, driver: any BlockDriver) throws -> BlockNode {
        try agent.graph.addPrivate(name: name, driver: driver).block
    }

    func removePrivateNode(name: String) async throws {
        try await agent.graph.removePrivate(name: name)
    }

    func claim(
        _ block: BlockNode, asDisk name: String, of holder: String, isWriter: Bool
    ) throws -> any NodeClaim {
        let node = try agent.graph.find(nodeOnly: block.name)
        let use = NodeUse(
            .disk(name, of: holder), role: "root", permissions: Claim.permissions(isWriter: isWriter),
            shared: Claim.shared(isWriter: isWriter), handle: block)
        try node.add(use)
        block.setParked(!isWriter)
        return Claim(use, nodeName: node.name)
    }

    private final class Claim: NodeClaim {
        private let use: NodeUse
        /// Before the release, which takes the use off it.
        private var lastNodeName: String

        init(_ use: NodeUse, nodeName: String) {
            self.use = use
            lastNodeName = nodeName
        }

        /// Seen through the filters of jobs.
        var nodeName: String {
            guard let node = use.node else { return lastNodeName }
            return (node.defined ?? node).name
        }

        static func permissions(isWriter: Bool) -> NodePermissions {
            isWriter ? [.consistentRead, .write] : .consistentRead
        }

        static func shared(isWriter: Bool) -> NodePermissions {
            isWriter ? [.consistentRead, .writeUnchanged] : NodePermissions.all.subtracting(.resize)
        }

        func setWriter(_ isWriter: Bool) throws {
            guard let node = use.node else { throw ColdframeError(.notFound, "\(use.user) has given its node up") }
            try node.change(
                use, permissions: Self.permissions(isWriter: isWriter), shared: Self.shared(isWriter: isWriter))
            use.handle?.setParked(!isWriter)
        }

        func release() {
            lastNodeName = nodeName
            guard let node = use.node else { return }
            node.remove(use)
            // The disk of a guest that has ended stays, whoever has made its node: it is the clients' from now on.
            if node.uses.isEmpty, !node.isPrivate { node.isMonitorOwned = true }
        }
    }

    func addBlockdev(_ options: BlockdevOptions) async throws {
        try await agent.graph.add(options)
        agent.catalogue.changed()
    }

    func addExport(_ options: BlockExportOptions) async throws {
        try await agent.exports.add(options, services: self)
    }

    func removeExport(id: String) async throws {
        try await agent.exports.remove(id: id, mode: .hard)
    }

    func exportURIs(of node: BlockNode) -> [String] { agent.exports.uris(of: node) }

    func startDiskServer(socketPath: String) async throws -> any DiskServer {
        guard let factory = agent.diskServerFactory else {
            throw ColdframeError(.unsupported, "This agent was built without a module that serves disks to guests")
        }
        return try await factory.start(socketPath: socketPath, services: self)
    }

    // MARK: Snapshots

    func snapshotSets() -> [SnapshotSet] { agent.catalogue.sets }

    func observeCatalogue(
        _ observer: @escaping @Sendable @AgentActor ([SnapshotSet]) -> Void
    ) -> any ObservationToken {
        agent.catalogue.observe(observer)
    }

    func openSnapshot(nodeName: String, snapshotID: String, holder: String) async throws -> any SnapshotLease {
        let node = try agent.graph.find(nodeOnly: nodeName)
        return try await agent.leases.open(node: node, snapshotID: snapshotID, holder: holder)
    }

    // MARK: Events and guests

    func postEvent(_ name: String, data: JSONObject?) { agent.post(name, data ?? [:]) }

    func forwardGuestEvent(_ event: JSONObject) { agent.forward(event) }

    func guestDied(id: String, reason: String) {
        logger.warning("guest '\(id)' ended: \(reason)")
        agent.guests.died(id: id)
        Task { await agent.recorder?.guestEnded() }
        agent.post("GUEST_DIED", ["id": .string(id), "reason": .string(reason)])
    }
}

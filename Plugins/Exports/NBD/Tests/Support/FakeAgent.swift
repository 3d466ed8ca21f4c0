import ColdframeKit
import Logging
import QAPI
import QMPWire

@testable import NBDExport

/// As much of the agent as the module's commands need: nodes by name, exports by id, commands by name.
@AgentActor
final class FakeAgent: AgentServices, CommandRegistry {
    nonisolated let agentName: String? = nil
    nonisolated let logger = Logger(label: "test")
    private var nodes: [String: BlockNode] = [:]
    private(set) var exports: [String: any BlockExport] = [:]
    private var commands: [String: (Any) async throws -> Void] = [:]
    private let factory: any BlockExportFactory

    struct Missing: Error {}

    init(_ module: Module, nodes: [BlockNode]) throws {
        guard let factory = module.blockExports.first else { throw Missing() }
        self.factory = factory
        for node in nodes { self.nodes[node.name] = node }
        module.registerCommands(self, self)
    }

    func run<C: QAPICommand>(_ command: C.Type, _ arguments: C.Arguments) async throws {
        guard let handler = commands[C.name] else { throw Missing() }
        try await handler(arguments)
    }

    // MARK: CommandRegistry

    func register<C: QAPICommand>(
        _ command: C.Type, touches: @escaping @Sendable (C.Arguments) -> Set<String>,
        _ handler: @escaping @Sendable @AgentActor (C.Arguments) async throws -> C.Result
    ) {
        commands[C.name] = { arguments in
            guard let arguments = arguments as? C.Arguments else { throw Missing() }
            _ = try await handler(arguments)
        }
    }

    // MARK: AgentServices

    func node(named name: String) throws -> BlockNode {
        guard let node = nodes[name] else {
            throw ColdframeError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'")
        }
        return node
    }

    func bitmap(
        named name: String, node nodeName: String, throughBacking: Bool
    ) throws -> (node: BlockNode, bitmap: DirtyBitmap) {
        let node = try node(named: nodeName)
        guard let bitmap = node.bitmaps.find(name) else {
            throw ColdframeError(.notFound, "Bitmap '\(name)' is not found")
        }
        return (node, bitmap)
    }

    func addExport(_ options: BlockExportOptions) async throws {
        let id = options.id
        exports[id] = try await factory.start(options, node: try node(named: options.nodeName), services: self) {
            [weak self] in self?.exports[id] = nil
        }
    }

    func exportURIs(of node: BlockNode) -> [String] { [] }

    func removeExport(id: String) async throws {
        await exports[id]?.stop()
        exports[id] = nil
    }

    func runtimeDirectory(for module: String) throws -> String { throw Missing() }
    func stateDirectory(for module: String) throws -> String { throw Missing() }
    func addPrivateNode(name: String, driver: any BlockDriver) throws -> BlockNode { throw Missing() }
    func removePrivateNode(name: String) async throws { throw Missing() }
    func claim(_ node: BlockNode, asDisk name: String, of holder: String, isWriter: Bool) throws -> any NodeClaim {
        throw Missing()
    }
    func addBlockdev(_ options: BlockdevOptions) async throws { throw Missing() }
    func snapshotSets() -> [SnapshotSet] { [] }
    func observeCatalogue(
        _ observer: @escaping @Sendable @AgentActor ([SnapshotSet]) -> Void
    ) -> any ObservationToken { NoToken() }
    func openSnapshot(nodeName: String, snapshotID: String, holder: String) async throws -> any SnapshotLease {
        throw Missing()
    }
    func startDiskServer(socketPath: String) async throws -> any DiskServer { throw Missing() }
    func postEvent(_ name: String, data: JSONObject?) {}
    func forwardGuestEvent(_ event: JSONObject) {}
    func guestDied(id: String, reason: String) {}

    private final class NoToken: ObservationToken {
        func cancel() {}
    }
}

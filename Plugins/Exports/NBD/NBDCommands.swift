import ColdframeKit
import QAPI

/// `nbd-server-start`, `-stop`, `-add` and `-remove`.
@AgentActor
struct NBDCommands {
    let server: PublicServer
    let services: any AgentServices

    func register(_ registry: any CommandRegistry) {
        registry.register(NbdServerStartCommand.self) { arguments in
            try start(arguments)
            return QAPIEmpty()
        }
        registry.register(NbdServerStopCommand.self) { _ in
            try await server.stop()
            return QAPIEmpty()
        }
        registry.register(NbdServerAddCommand.self, touches: { [$0.device, $0.name ?? $0.device] }) { options in
            try await add(options)
            return QAPIEmpty()
        }
        registry.register(NbdServerRemoveCommand.self, touches: { [$0.name] }) { arguments in
            try await remove(arguments.name, isHard: arguments.mode == .hard)
            return QAPIEmpty()
        }
    }

    private func start(_ arguments: NbdServerStartArguments) throws {
        try server.checkStopped()
        if let credentials = arguments.tlsCreds {
            throw ColdframeError(.notFound, "No TLS credentials with id '\(credentials)'")
        }
        try server.start(
            ListenAddress(arguments.addr),
            maxConnections: arguments.maxConnections ?? PublicServer.defaultMaxConnections)
    }

    /// By `block-export-add`, with the name as id, so that the export is listed and deleted as any other.
    private func add(_ options: NbdServerAddArguments) async throws {
        let node = try services.node(named: options.device)
        let name = options.name ?? options.device
        let branch = BlockExportOptionsNbd(
            name: name, description: options.description, bitmaps: options.bitmap.map { [.local($0)] })
        // A node that cannot be written is exported read-only, whatever was asked for; block-export-add refuses.
        let isWritable = (options.writable ?? false) && !node.isReadOnly
        try await services.addExport(
            BlockExportOptions(type: "nbd", id: name, nodeName: node.name, writable: isWritable, branch: branch))
    }

    private func remove(_ name: String, isHard: Bool) async throws {
        guard let export = server.export(id: name) else {
            throw ColdframeError(.notFound, "Export '\(name)' is not found")
        }
        guard isHard || !export.hasClients else { throw ColdframeError(.busy, "export '\(name)' still in use") }
        try await services.removeExport(id: name)
    }
}

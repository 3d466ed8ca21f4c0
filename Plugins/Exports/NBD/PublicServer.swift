import ColdframeKit
import LinuxSystem

/// The server of `nbd-server-start`: at most one, with the exports of type `nbd`.
@AgentActor
final class PublicServer {
    /// `max-connections` where it is not given.
    nonisolated static let defaultMaxConnections: UInt32 = 100

    private var running: Server?
    private var address: ListenAddress?
    private var isStopping = false
    /// By the id of the export, which is not the name under which clients know it.
    private var exports: [String: PublicExport] = [:]

    nonisolated init() {}

    /// - Parameter maxConnections: 0 leaves it at the server's own bound.
    /// - Throws: QEMU's text if one is running (also while it still stops), or what is wrong with the address.
    func start(_ address: ListenAddress, maxConnections: UInt32) throws {
        try checkStopped()
        var limits = ServerLimits()
        if maxConnections > 0 { limits.maxConnections = Int(min(maxConnections, UInt32(limits.maxConnections))) }
        let (listener, path) = try address.listen()
        running = try Server(listener: listener, socketPath: path, limits: limits)
        self.address = address
    }

    /// In QEMU's form, which quotes nothing; nil for TCP, where a host may have many names.
    fileprivate func uri(exportName: String) -> String? {
        guard running != nil, case .unix(let path) = address else { return nil }
        return "nbd+unix:///\(exportName)?socket=\(path)"
    }

    /// Throws QEMU's text if a server runs.
    func checkStopped() throws {
        guard running == nil else { throw ColdframeError(.alreadyExists, "NBD server already running") }
    }

    /// Ends all exports, then the server. It suspends until no request is in flight.
    func stop() async throws {
        guard let server = running, !isStopping else {
            throw ColdframeError(.notFound, "NBD server not running")
        }
        isStopping = true
        for export in exports.values.sorted(by: { $0.id < $1.id }) {
            await export.stop()
            await export.onGone()
        }
        await server.stop()
        running = nil
        isStopping = false
    }

    private func server() throws -> Server {
        guard let running, !isStopping else { throw ColdframeError(.notFound, "NBD server not running") }
        return running
    }

    /// Throws QEMU's text if the server does not run or has an export of that name.
    func checkFree(name: String) throws {
        guard try server().exports.find(name) == nil else { throw Self.nameTaken(name) }
    }

    private static func nameTaken(_ name: String) -> ColdframeError {
        ColdframeError(.alreadyExists, "NBD server already has export named '\(name)'")
    }

    /// Serves a node; the core has checked `id` and permissions.
    func add(
        id: String, name: String, description: String?, node: BlockNode, isWritable: Bool,
        isWritethrough: Bool = false, bitmaps: [ExportedBitmap] = [],
        onEnd: @escaping @Sendable () -> Void = {}, onGone: @escaping @Sendable @AgentActor () async -> Void
    ) async throws -> PublicExport {
        try checkFree(name: name)
        let server = try server()
        let named = try NamedExport.make(
            name: name, description: description, node: node, isWritable: isWritable,
            isWritethrough: isWritethrough, canMultiConnect: server.limits.maxConnections != 1, bitmaps: bitmaps)
        // It may have been stopped in the meantime.
        guard try self.server() === server else { throw ColdframeError(.notFound, "NBD server not running") }
        guard server.exports.insert(named) else { throw Self.nameTaken(name) }
        let export = PublicExport(
            id: id, named: named, table: server.exports, owner: self, onEnd: onEnd, onGone: onGone)
        exports[id] = export
        return export
    }

    func export(id: String) -> PublicExport? { exports[id] }

    fileprivate func forget(_ export: PublicExport) {
        if exports[export.id] === export { exports[export.id] = nil }
    }
}

/// One export of the public server, as the core sees it.
@AgentActor
final class PublicExport: BlockExport {
    let id: String
    fileprivate let onGone: @Sendable @AgentActor () async -> Void
    private let named: NamedExport
    private let table: ExportTable
    private let owner: PublicServer
    /// Gives back what the export held; called once.
    private var onEnd: (@Sendable () -> Void)?

    fileprivate init(
        id: String, named: NamedExport, table: ExportTable, owner: PublicServer,
        onEnd: @escaping @Sendable () -> Void, onGone: @escaping @Sendable @AgentActor () async -> Void
    ) {
        self.id = id
        self.named = named
        self.table = table
        self.owner = owner
        self.onEnd = onEnd
        self.onGone = onGone
    }

    var hasClients: Bool { named.hasConnections }
    var uri: String? { owner.uri(exportName: named.name) }

    func stop() async {
        table.remove(named)
        owner.forget(self)
        await named.stop()
        onEnd?()
        onEnd = nil
    }
}

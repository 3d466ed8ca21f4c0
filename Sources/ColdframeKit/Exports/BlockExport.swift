import QAPI

/// One export of a node (`block-export-add`).
@AgentActor
public protocol BlockExport: AnyObject, Sendable {
    /// Somebody is connected: `mode: safe` deletion refuses.
    var hasClients: Bool { get }
    /// Where clients find it, as QEMU writes it; nil if it has no such name.
    var uri: String? { get }
    /// Stops serving: no request of the export is in flight when it returns. Idempotent.
    func stop() async
}

extension BlockExport {
    public var uri: String? { nil }
}

/// What a module contributes for one value of `BlockExportType`.
public protocol BlockExportFactory: Sendable {
    var typeName: String { get }
    /// Starts to serve `node`. `options.branch` is the module's branch type. The core has checked id and permissions.
    /// `onGone` is to be called when the export ends by itself (its server was stopped).
    @AgentActor
    func start(
        _ options: BlockExportOptions, node: BlockNode, services: any AgentServices,
        onGone: @escaping @Sendable @AgentActor () async -> Void
    ) async throws -> any BlockExport
}

/// A private server through which one VMM reaches its disks, apart from the one of `nbd-server-start`.
@AgentActor
public protocol DiskServer: AnyObject, Sendable {
    /// Path of the unix socket.
    var socketPath: String { get }
    /// Serves `node` under `exportName`. With `ownWorkers` its requests share no thread with other exports.
    func add(_ node: BlockNode, exportName: String, isWritable: Bool, ownWorkers: Bool) async throws
    func remove(exportName: String) async
    /// Disconnects everybody and removes the socket.
    func stop() async
}

/// Makes disk servers; at most one module provides it.
public protocol DiskServerFactory: Sendable {
    /// Listens on a unix socket that only this user may open; a stale socket file of an earlier agent is replaced.
    @AgentActor
    func start(socketPath: String, services: any AgentServices) async throws -> any DiskServer
}

/// One mounted tree or other view of the catalogue (`snapshot-export-add`).
@AgentActor
public protocol SnapshotExport: AnyObject, Sendable {
    /// Where it is seen.
    var mountpoint: String { get }
    func stop() async
}

public protocol SnapshotExportFactory: Sendable {
    @AgentActor
    func start(_ options: SnapshotExportOptions, services: any AgentServices) async throws -> any SnapshotExport
    /// Removes what an earlier agent left at the mountpoint, if it was ours. Called before the first export.
    @AgentActor
    func cleanStale(mountpoint: String) async throws
}

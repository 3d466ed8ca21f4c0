import QAPI

/// One module of the agent: what a folder under `Plugins/` contributes. `coldframed` holds the one list of them.
public struct Module: Sendable {
    /// The folder's name, for logs and errors.
    public var name: String
    /// Branches, commands and introspection generated from the module's schema files; empty for a module that has no options.
    public var schema: SchemaFragment
    public var blockDrivers: [any BlockDriverFactory]
    public var blockExports: [any BlockExportFactory]
    public var snapshotExports: [any SnapshotExportFactory]
    public var guests: [any GuestFactory]
    public var vmStateStores: [any VMStateStoreFactory]
    public var guestFilesystems: [any GuestFilesystemFactory]
    public var objects: [any UserObjectFactory]
    public var diskServer: (any DiskServerFactory)?
    /// Registers the module's commands (those of its own schema) with the agent.
    public var registerCommands:
        @Sendable @AgentActor (_ registry: any CommandRegistry, _ services: any AgentServices) -> Void

    public init(
        name: String, schema: SchemaFragment = .empty, blockDrivers: [any BlockDriverFactory] = [],
        blockExports: [any BlockExportFactory] = [], snapshotExports: [any SnapshotExportFactory] = [],
        guests: [any GuestFactory] = [], vmStateStores: [any VMStateStoreFactory] = [],
        guestFilesystems: [any GuestFilesystemFactory] = [], objects: [any UserObjectFactory] = [],
        diskServer: (any DiskServerFactory)? = nil,
        registerCommands: @escaping @Sendable @AgentActor (any CommandRegistry, any AgentServices) -> Void = { _, _ in }
    ) {
        self.name = name
        self.schema = schema
        self.blockDrivers = blockDrivers
        self.blockExports = blockExports
        self.snapshotExports = snapshotExports
        self.guests = guests
        self.vmStateStores = vmStateStores
        self.guestFilesystems = guestFilesystems
        self.objects = objects
        self.diskServer = diskServer
        self.registerCommands = registerCommands
    }
}

/// Where commands are registered.
@AgentActor
public protocol CommandRegistry: AnyObject {
    /// The handler runs on the actor and may suspend. `touches` names the nodes, jobs and exports that the command works
    /// on: a later command that needs one of them waits until this one is done.
    func register<C: QAPICommand>(
        _ command: C.Type, touches: @escaping @Sendable (C.Arguments) -> Set<String>,
        _ handler: @escaping @Sendable @AgentActor (C.Arguments) async throws -> C.Result)
}

extension CommandRegistry {
    /// A command that touches nothing by name.
    public func register<C: QAPICommand>(
        _ command: C.Type, _ handler: @escaping @Sendable @AgentActor (C.Arguments) async throws -> C.Result
    ) {
        register(command, touches: { _ in [] }, handler)
    }
}

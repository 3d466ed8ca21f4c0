import ColdframeKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

/// The agent: every part of the core, made once and wired together.
///
/// Its life: `init`, then `start` (monitor and journal are up), then the user's nodes, exports, guest and trees by
/// commands, then `stop`, which ends them in the reverse of the order in which they need one another.
@AgentActor
public final class Agent {
    public struct Configuration: Sendable {
        /// `--name`; nil for an agent that keeps no state.
        public var name: String?
        /// Folders into which file names found in images are followed.
        public var allowedBackingFolders: [String]
        public var logger: Logger
        /// What jobs wait by.
        public var jobClock: any WaitClock = HostClock()

        public init(name: String?, allowedBackingFolders: [String], logger: Logger) {
            self.name = name
            self.allowedBackingFolders = allowedBackingFolders
            self.logger = logger
        }
    }

    public let jobs: JobRegistry
    public let monitors: MonitorRegistry
    public let commands: CommandTable
    public let directories: AgentDirectories?
    let objects: ObjectRegistry
    let graph: Graph
    let exports: ExportRegistry
    let snapshotExports: SnapshotExportRegistry
    let guests: GuestRegistry
    let catalogue: Catalogue
    var leases: LeaseTable { graph.leases }
    let lane = SnapshotLane()
    private let lock: AgentLock?
    let journal: Journal?
    /// nil for an agent that keeps no state.
    let recovery: IntentRecovery?
    let setStore: SetStore?
    /// nil for an agent that keeps no state.
    let recorder: StateRecorder?
    let diskServerFactory: (any DiskServerFactory)?
    let logger: Logger
    private(set) lazy var services = CoreServices(
        agent: self, name: configuration.name, directories: directories, logger: logger)
    /// Called when a client has sent `quit`, with whether the guest is to end too.
    public var onQuit: (@AgentActor (_ endsGuest: Bool) -> Void)?
    private let configuration: Configuration

    /// Makes the agent of these modules; their branches must be installed in the branch table already.
    public init(_ configuration: Configuration, modules: [Module]) throws {
        self.configuration = configuration
        logger = configuration.logger
        directories = try configuration.name.map { name throws(ColdframeError) in try AgentDirectories(name: name) }
        lock = try directories.map { try AgentLock(name: configuration.name ?? "", runtimeDirectory: $0.runtime) }
        journal = try directories.map { try Journal(path: $0.state + "/journal") }
        setStore = try directories.map { try SetStore(stateDirectory: $0.state) }
        recorder = try directories.map { try StateRecorder(stateDirectory: $0.state, logger: configuration.logger) }
        for (step, intent) in journal?.interrupted ?? [] where step == .committed {
            if let shape = intent.shape { recorder?.inherit(shape) }
        }
        let monitors = MonitorRegistry(logger: configuration.logger)
        self.monitors = monitors
        let post: @Sendable @AgentActor (String, JSONObject) -> Void = { name, data in
            monitors.post(event: name, data: data)
        }
        jobs = JobRegistry(clock: configuration.jobClock, post: post)
        objects = ObjectRegistry(factories: modules.flatMap(\.objects))
        graph = Graph(
            factories: modules.flatMap(\.blockDrivers),
            gate: ImageReferenceGate(allowedFolders: configuration.allowedBackingFolders),
            openImages: try directories.map { try OpenImages(stateDirectory: $0.state, logger: configuration.logger) },
            logger: configuration.logger, post: post)
        graph.findObject = { [objects] in objects.find($0) }
        if let recorder {
            graph.record = { shape in try await recorder.follow(shape) }
        }
        exports = ExportRegistry(factories: modules.flatMap(\.blockExports), graph: graph, post: post)
        snapshotExports = SnapshotExportRegistry(factory: modules.flatMap(\.snapshotExports).first)
        guests = GuestRegistry(factories: modules.flatMap(\.guests)) { [lane] in lane.jobID }
        catalogue = Catalogue(graph: graph)
        recovery = journal.map { [graph, catalogue, setStore] journal in
            IntentRecovery(
                graph: graph, journal: journal, catalogue: catalogue, sets: setStore, logger: configuration.logger)
        }
        // What was made for a guest's state by an agent that did not come to remove it.
        if let directories { try? Files.removeTree(directories.state + "/load") }
        diskServerFactory = modules.lazy.compactMap(\.diskServer).first
        commands = CommandTable()
        commands.recorder = recorder
        recorder?.execute = { [unowned commands] command, arguments in
            _ = try await commands.execute(command, arguments)
        }
        registerCommands(modules)
        serve(modules)
    }

    private func registerCommands(_ modules: [Module]) {
        registerJobCommands(commands, jobs: jobs)
        registerBlockJobCommands(commands, jobs: jobs)
        registerBackupCommands(commands, agent: self)
        registerMirrorCommands(commands, agent: self)
        registerDriveMirrorCommand(commands, agent: self)
        registerAmendCommand(commands, agent: self)
        registerChainJobCommands(commands, agent: self)
        registerObjectCommands(commands, agent: self)
        registerNodeCommands(commands, agent: self)
        registerChainCommands(commands, agent: self)
        registerBlockCommands(commands, agent: self)
        registerBitmapCommands(commands, agent: self)
        registerExportCommands(commands, agent: self)
        registerSnapshotCommands(commands, agent: self)
        registerGuestCommands(commands, agent: self)
        for module in modules { module.registerCommands(commands, services) }
    }

    /// Commands are answered from here on, as soon as a monitor is added.
    private func serve(_ modules: [Module]) {
        let hooks = MonitorHooks(
            isGuests: { [guests, objects] command, arguments in
                guests.guest != nil && objects.leavesToGuest(command, arguments)
            },
            passThrough: { [guests] command, arguments in
                try await guests.guest?.passThrough(command, arguments: arguments)
            },
            guestCommands: { [guests] in (try? await guests.guest?.ownCommands()) ?? [] },
            guestSchema: { [guests] in (try? await guests.guest?.ownSchema()) ?? [] },
            quit: { [weak self] endsGuest in self?.onQuit?(endsGuest) })
        monitors.serve(commands, hooks: hooks, schemas: modules.map(\.schema))
    }

    var snapshotContext: SnapshotContext {
        SnapshotContext(
            graph: graph, catalogue: catalogue, leases: leases, journal: journal, sets: setStore,
            stateDirectory: directories?.state, guest: { [guests] in guests.guest },
            guestOptions: { [recorder] in recorder?.record.guest?.arguments },
            replaceGuest: { [guests] in guests.replace($0, with: $1) },
            post: { [monitors] in monitors.post(event: $0, data: $1) },
            logger: logger)
    }

    /// The command line, a tool and a curious operator may all look at one agent at once.
    private static let ownMonitorClientLimit = 64

    /// The monitor that `coldframe` finds by the agent's name; only agents with a name have it.
    public func openOwnMonitor() throws {
        guard let directories else { return }
        try monitors.add(
            id: "coldframe", chardev: .unixServer(path: directories.runtime + "/qmp.sock"),
            clientLimit: Self.ownMonitorClientLimit)
    }

    /// Brings interrupted operations to an end whose images are here by now. Called when nodes have been added.
    public func recover() async {
        guard let recovery, !recovery.journal.interrupted.isEmpty else { return }
        // Nothing else may touch the snapshots meanwhile; the lane itself does not throw.
        try? await lane.run { await recovery.run() }
        catalogue.changed()
    }

    /// A guest was taken over: it and its disks are brought to the end of what was begun on both.
    func settle(_ guest: any Guest) async {
        guard let recovery else { return }
        recovery.awaitsGuest = false
        guard guest.wasTakenOver else { return }
        try? await lane.run { await GuestSettlement(recovery: recovery, guest: guest).run() }
        catalogue.changed()
    }

    public var hasGuest: Bool { guests.guest != nil }

    /// The guest ran before this agent did.
    public var hasTakenOverGuest: Bool { guests.guest?.wasTakenOver ?? recovery?.awaitsGuest ?? false }

    func post(_ event: String, _ data: JSONObject) { monitors.post(event: event, data: data) }
    func forward(_ event: JSONObject) { monitors.forward(event) }

    /// Ends everything: jobs first (they give back what they hold), then mounts, the guest, exports and nodes. A guest that
    /// is not to end goes on without an agent, and waits for its disks until the next one takes it over.
    public func stop(endsGuest: Bool) async {
        // What waits for its turn at a limit would otherwise be waited for.
        graph.releaseDelays()
        await jobs.cancelAll()
        await snapshotExports.removeAll()
        do {
            try await guests.close(endsGuest: endsGuest)
            if endsGuest { await recorder?.guestEnded() }
        } catch {
            logger.error("the guest could not be ended: \(ColdframeError(wrapping: error))")
        }
        await exports.removeAll()
        // In the lane: a command that is at a node's snapshots comes to its end first.
        let failures = try? await lane.run { await graph.closeAll() }
        for failure in failures ?? [] { logger.error("\(failure)") }
    }
}

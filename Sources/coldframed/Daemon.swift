import AgentCore
import ColdframeKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

/// The agent's process from its plan to its end.
@AgentActor
struct Daemon {
    private let plan: StartupPlan

    nonisolated init(plan: StartupPlan) {
        self.plan = plan
    }

    /// Starts everything, waits for the first element of `ends`, which `quit` yields as well, and ends everything.
    func run(until ends: AsyncStream<DaemonEnd>, end: AsyncStream<DaemonEnd>.Continuation) async throws {
        let logger = Logger(label: "coldframed") { StreamLogHandler.standardError(label: $0) }
        let agent = try Agent(
            Agent.Configuration(
                name: plan.name, allowedBackingFolders: plan.allowedBackingFolders.map(Self.canonical), logger: logger),
            modules: Modules.all)
        agent.onQuit = { end.yield(.quit(endsGuest: $0)) }
        do {
            try await start(agent)
        } catch {
            // A guest that ran before goes on; one that was just started is of no use to anybody.
            await agent.stop(endsGuest: !agent.hasTakenOverGuest)
            await agent.monitors.stop()
            throw error
        }
        let manager = ServiceManager()
        manager?.ready(status: "\(plan.name ?? "no name"), \(agent.hasGuest ? "with" : "without") a guest")
        let watchdog = manager.flatMap { signsOfLife($0) }
        var endsGuest = plan.guestAtExit == .end
        for await reason in ends {
            if case .quit(let wish) = reason { endsGuest = wish }
            break
        }
        watchdog?.cancel()
        manager?.stopping()
        await agent.stop(endsGuest: endsGuest)
        await agent.monitors.stop()
        // A pid file that cannot be removed is stale, and says so by its process.
        if let path = plan.pidFile { try? Files.unlink(path) }
    }

    /// On the actor: an agent whose actor is stuck gives none.
    private func signsOfLife(_ manager: ServiceManager) -> Task<Void, any Error>? {
        guard let limit = manager.watchdogMicroseconds, limit > 0 else { return nil }
        return Task { @AgentActor in
            while true {
                manager.isAlive()
                try await Task.sleep(nanoseconds: limit * 1000 / 3)
            }
        }
    }

    private func start(_ agent: Agent) async throws {
        // A monitor may be named before the nodes are: who connects early sees all of the start, as with qemu-storage-daemon.
        agent.monitors.setPaused(true)
        // An agent with a name may have more to do than it is told here: its clients come when all of it is done.
        let isNamed = plan.name != nil
        var starting = AgentStart(agent: agent)
        if isNamed { try await agent.start(plan.steps.compactMap(\.item)) }
        for step in plan.steps where !isNamed || step.item == nil {
            do {
                try await starting.perform(step)
            } catch {
                throw StartupError(step.describe(error))
            }
        }
        if let path = plan.pidFile {
            do {
                try Files.replaceAtomically(path, contents: Array("\(ProcessControl.currentPID)\n".utf8))
            } catch {
                throw StartupError("cannot create PID file: \(error)")
            }
        }
        agent.monitors.setPaused(false)
        // Last, so that whoever finds the socket finds everything else.
        try agent.openOwnMonitor()
    }

    /// Folders are compared by their true paths.
    private nonisolated static func canonical(_ path: String) -> String {
        (try? Files.canonicalPath(path)) ?? path
    }
}

/// Why the agent ends.
enum DaemonEnd: Sendable {
    case signal
    /// A client asked for it.
    case quit(endsGuest: Bool)
}

extension StartupStep {
    /// The command that it is; nil for monitors.
    fileprivate var item: StartItem? {
        func item(_ command: String, _ options: some QAPIObjectValue) -> StartItem {
            var arguments = JSONObject()
            options.write(to: &arguments)
            return StartItem(location: location, command: command, arguments: arguments)
        }
        return switch action {
        case .addObject(let options): item("object-add", options)
        case .addBlockdev(let options): item("blockdev-add", options)
        case .addExport(let options): item("block-export-add", options)
        case .addGuest(let options): item("guest-add", options)
        case .addSnapshotExport(let options): item("snapshot-export-add", options)
        case .startNBDServer(let arguments):
            StartItem(location: location, command: "nbd-server-start", arguments: arguments)
        case .addChardev, .addMonitor: nil
        }
    }
}

/// Carries out the steps of a plan in their order.
@AgentActor
private struct AgentStart {
    let agent: Agent
    private var chardevs: [String: MonitorChardev] = [:]
    private var monitorCount = 0

    init(agent: Agent) {
        self.agent = agent
    }

    mutating func perform(_ step: StartupStep) async throws {
        if let item = step.item { _ = try await agent.commands.execute(item.command, item.arguments) }
        switch step.action {
        case .addObject, .addBlockdev, .addExport, .addGuest, .addSnapshotExport, .startNBDServer: break
        case .addChardev(let options): chardevs[options.id] = options.backend.chardev
        case .addMonitor(let options):
            guard let chardev = chardevs[options.chardev] else {
                throw StartupError("chardev \"\(options.chardev)\" not found: give its --chardev before")
            }
            monitorCount += 1
            try agent.monitors.add(
                id: options.id ?? "compat_monitor\(monitorCount - 1)", chardev: chardev, pretty: options.isPretty)
        }
    }

}

extension ChardevOptions.Backend {
    /// A monitor never waits for its first client: `wait=on` has no effect.
    fileprivate var chardev: MonitorChardev {
        switch self {
        case .standardStreams: .stdio
        case .unixSocket(let path, .client): .unixClient(path: path)
        case .unixSocket(let path, .server): .unixServer(path: path)
        case .tcpSocket(let host, let port, .client): .tcpClient(host: host, port: port)
        case .tcpSocket(let host, let port, .server): .tcpServer(host: host, port: port)
        }
    }
}

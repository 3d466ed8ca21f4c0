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
    func run(until ends: AsyncStream<Void>, end: AsyncStream<Void>.Continuation) async throws {
        let logger = Logger(label: "coldframed") { StreamLogHandler.standardError(label: $0) }
        let agent = try Agent(
            Agent.Configuration(
                name: plan.name, allowedBackingFolders: plan.allowedBackingFolders.map(Self.canonical), logger: logger),
            modules: Modules.all)
        agent.onQuit = { end.yield() }
        do {
            try await start(agent)
        } catch {
            await agent.stop()
            await agent.monitors.stop()
            throw error
        }
        for await _ in ends { break }
        await agent.stop()
        await agent.monitors.stop()
        // A pid file that cannot be removed is stale, and says so by its process.
        if let path = plan.pidFile { try? Files.unlink(path) }
    }

    private func start(_ agent: Agent) async throws {
        // A monitor may be named before the nodes are: who connects early sees all of the start, as with qemu-storage-daemon.
        agent.monitors.setPaused(true)
        var starting = AgentStart(agent: agent)
        for step in plan.steps {
            do {
                try await starting.perform(step.action)
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
        await agent.recover()
        agent.monitors.setPaused(false)
        // Last, so that whoever finds the socket finds everything else.
        try agent.openOwnMonitor()
    }

    /// Folders are compared by their true paths.
    private nonisolated static func canonical(_ path: String) -> String {
        (try? Files.canonicalPath(path)) ?? path
    }
}

/// Carries out the steps of a plan through the agent's own commands, so that each does what a client's would.
@AgentActor
private struct AgentStart {
    let agent: Agent
    private var chardevs: [String: MonitorChardev] = [:]
    private var monitorCount = 0

    init(agent: Agent) {
        self.agent = agent
    }

    mutating func perform(_ action: StartupAction) async throws {
        switch action {
        case .addBlockdev(let options): try await execute("blockdev-add", options)
        case .addExport(let options): try await execute("block-export-add", options)
        case .addGuest(let options):
            // A guest must not run on disks of which half are of another moment.
            await agent.recover()
            try await execute("guest-add", options)
        case .addSnapshotExport(let options): try await execute("snapshot-export-add", options)
        case .startNBDServer(let arguments): _ = try await agent.commands.execute("nbd-server-start", arguments)
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

    private func execute(_ command: String, _ arguments: some QAPIObjectValue) async throws {
        var object = JSONObject()
        arguments.write(to: &object)
        _ = try await agent.commands.execute(command, object)
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

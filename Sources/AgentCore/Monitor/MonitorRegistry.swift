import ColdframeKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

/// The agent's monitors: made by the user's options, fed with events by everybody.
///
/// Events are stamped here and go to every client past the negotiation, in the order of the calls. They are not
/// throttled: those that a guest can trigger at will are throttled by QEMU before they are forwarded, and the agent's
/// own (jobs, exports, snapshots) QEMU never throttles either.
@AgentActor
public final class MonitorRegistry {
    private let logger: Logger
    private var dispatcher: Dispatcher?
    private var servers: [MonitorServer] = []

    public nonisolated init(logger: Logger) { self.logger = logger }

    /// Registers the commands about the monitor itself (`query-version`, `query-commands`, `query-qmp-schema`, `quit`)
    /// and serves the table from now on. Once, before the first `add`.
    public func serve(_ commands: CommandTable, hooks: MonitorHooks, schemas: [SchemaFragment]) {
        registerControlCommands(commands, hooks: hooks, schemas: schemas)
        dispatcher = Dispatcher(commands: commands, hooks: hooks)
    }

    /// While paused, clients can connect and send, but no command starts.
    public func setPaused(_ isPaused: Bool) { dispatcher?.setPaused(isPaused) }

    /// Opens a monitor; clients can connect when this returns.
    /// - Parameter clientLimit: how many clients a listening chardev serves at once; 1 is QEMU's way.
    /// - Returns: the port of a TCP server.
    @discardableResult
    public func add(
        id: String, chardev: MonitorChardev, pretty: Bool = false, clientLimit: Int = 1
    ) throws(ColdframeError) -> UInt16? {
        guard let dispatcher else {
            throw ColdframeError(.invalidArgument, "No commands are served yet")
        }
        guard !servers.contains(where: { $0.id == id }) else {
            throw ColdframeError(.alreadyExists, "Duplicate monitor ID '\(id)'")
        }
        let server = try MonitorServer(
            id: id, chardev: chardev, isPretty: pretty, clientLimit: clientLimit, dispatcher: dispatcher, logger: logger
        )
        try server.start()
        servers.append(server)
        if case .tcpServer = chardev { return server.port }
        return nil
    }

    /// Identifiers of the open monitors.
    public var ids: [String] { servers.map(\.id) }

    /// Sends an event to all clients, stamped now.
    public func post(event name: String, data: JSONObject?) {
        let now = SystemClock.realtime()
        broadcast(
            QMPResponse.event(
                name, data: data, seconds: now.seconds, microseconds: Int64(now.nanoseconds / 1000)))
    }

    /// Sends a whole event with the stamp that it has.
    public func forward(_ event: JSONObject) { broadcast(.object(event)) }

    private func broadcast(_ event: JSONValue) {
        let message = EncodedMessage(event)
        for server in servers { server.send(event: message) }
    }

    /// Ends all monitors. Each client gets up to `milliseconds` to take what waits for it.
    public func stop(milliseconds: Int = 1000) async {
        let ended = servers
        servers = []
        for server in ended {
            await BlockingPool.shared.run { server.stop(milliseconds: milliseconds) }
        }
    }
}

import LinuxSystem
import QMPClient
import QMPWire

/// One conversation with one agent, for a command that runs to its end.
final class Session {
    let agentName: String
    private let client: QMPClient
    private let events: EventBox

    /// Speaks with the agent of that name.
    convenience init(agent name: String) throws {
        try self.init(socket: AgentLocator.socketPath(name), title: name)
    }

    init(socket path: String, title name: String) throws {
        agentName = name
        let events = EventBox()
        self.events = events
        do {
            client = try QMPClient.connect(path: path, onEvent: { events.add($0) })
            try client.negotiateBlocking(timeoutMilliseconds: Self.greetingTimeoutMilliseconds)
        } catch {
            throw CommandFailure(Self.explain(error, name: name, path: path))
        }
    }

    /// An agent serves one client of a socket at a time; somebody else's conversation may have to end first.
    private static let greetingTimeoutMilliseconds = 10_000

    private static func explain(_ error: any Error, name: String, path: String) -> String {
        let running = AgentLocator.names().filter { $0 != name }
        let hint =
            running.isEmpty
            ? "Start it with: coldframed --name \(name) …" : "Agents here: \(running.joined(separator: ", "))"
        if !Files.exists(path) { return "No agent named '\(name)' is running. \(hint)" }
        return "The agent '\(name)' does not answer on \(path): \(error). \(hint)"
    }

    /// The command's return value; an error in the agent's words.
    @discardableResult
    func execute(_ command: String, _ arguments: JSONObject? = nil) throws -> JSONValue {
        do {
            return try client.executeBlocking(command, arguments)
        } catch {
            guard let refusal = error.qmpError else {
                throw CommandFailure("\(command): the agent '\(agentName)' does not answer: \(error)")
            }
            throw CommandFailure("\(command): \(refusal.description)")
        }
    }

    /// Events that have come since the last call.
    func takeEvents() -> [(name: String, data: JSONObject)] {
        events.take().map { ($0["event"]?.stringValue ?? "", $0["data"]?.objectValue ?? [:]) }
    }

    // MARK: What several commands need

    /// The nodes a user named, or else the guest's disks, or else all nodes that can bear snapshots.
    func devices(_ list: String?) throws -> [String] {
        if let list { return list.split(separator: ",").map(String.init) }
        if let guest = try? execute("query-guest"), let nodes = guest["nodes"]?.arrayValue, !nodes.isEmpty {
            return nodes.compactMap(\.stringValue)
        }
        let nodes = try execute("query-named-block-nodes").arrayValue ?? []
        let names = nodes.filter { $0["drv"]?.stringValue == "qcow2" && $0["ro"]?.boolValue == false }
            .compactMap { $0["node-name"]?.stringValue }.filter { !$0.hasPrefix("#") }
        guard !names.isEmpty else {
            throw CommandFailure("Agent '\(agentName)' has no node that can bear snapshots")
        }
        return names.reversed()
    }

    func snapshotSet(_ tag: String) throws -> SnapshotSetView {
        let sets = (try execute("query-snapshots").arrayValue ?? []).compactMap(SnapshotSetView.init)
        if let set = sets.first(where: { $0.tag == tag }) { return set }
        let known = sets.isEmpty ? "it has none" : "it has " + sets.map { "'\($0.tag)'" }.joined(separator: ", ")
        throw CommandFailure("Agent '\(agentName)' has no snapshot '\(tag)': \(known)")
    }
}

/// What went wrong, in words for the user; ArgumentParser prints it after `Error: ` and exits with 1.
struct CommandFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Events that came while nobody looked.
private final class EventBox: Sendable {
    private let events = Locked<[JSONObject]>([])
    /// A command of the CLI waits for few events; what is older than so many is of no use to it.
    private static let limit = 1000

    func add(_ event: JSONObject) {
        events.withLock { events in
            if events.count == Self.limit { events.removeFirst() }
            events.append(event)
        }
    }

    func take() -> [JSONObject] {
        events.withLock { events in
            defer { events = [] }
            return events
        }
    }
}

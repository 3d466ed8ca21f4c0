import ArgumentParser
import QMPWire

/// `coldframe status [NAME]`
struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the running agents, or one of them in detail.")
    @Argument(help: "Name of one agent.") var name: String?
    @Flag(help: "Print as JSON.") var json = false

    func run() throws {
        if let name { return try detail(name) }
        let names = AgentLocator.names()
        if json {
            return Terminal.write(json: .array(names.map { .string($0) }))
        }
        guard !names.isEmpty else { return Terminal.write("No agents are running\n") }
        var table = Table("AGENT", "GUEST", "DISKS", "SNAPSHOTS", "JOBS")
        for name in names {
            do {
                let view = try AgentView(Session(agent: name))
                table.add(
                    name, view.guestStatus, view.disks.joined(separator: ","), "\(view.snapshotCount)",
                    "\(view.activeJobs.count)")
            } catch {
                table.add(name, "does not answer", "", "", "")
            }
        }
        Terminal.write(table.text + "\n")
    }

    private func detail(_ name: String) throws {
        let view = try AgentView(Session(agent: name))
        if json { return Terminal.write(json: .object(view.json)) }
        var lines = ["agent      \(name)", "guest      \(view.guestStatus)"]
        for node in view.nodes {
            lines.append("node       \(node)")
        }
        lines.append("snapshots  \(view.snapshotCount)")
        for tree in view.trees { lines.append("tree       \(tree)") }
        for job in view.activeJobs { lines.append("job        \(job)") }
        for intent in view.pendingIntents { lines.append("pending    \(intent)") }
        Terminal.write(lines.joined(separator: "\n") + "\n")
    }
}

/// What an agent says of itself.
private struct AgentView {
    let json: JSONObject
    private let guest: JSONValue?

    init(_ session: Session) throws {
        guest = try? session.execute("query-guest")
        json = [
            "name": .string(session.agentName),
            "guest": guest ?? .null,
            "nodes": try session.execute("query-named-block-nodes"),
            "snapshots": try session.execute("query-snapshots"),
            "snapshot-exports": try session.execute("query-snapshot-exports"),
            "jobs": try session.execute("query-jobs"),
            "pending-intents": (try? session.execute("query-intents")) ?? .array([]),
        ]
    }

    private func list(_ key: String) -> [JSONValue] { json[key]?.arrayValue ?? [] }

    var guestStatus: String {
        guard let guest else { return "none" }
        let status = guest["status"]?.stringValue ?? "?"
        return guest["pid"]?.intValue.map { "\(status) (pid \($0))" } ?? status
    }
    /// With the node that serves it, where that has another name.
    var disks: [String] {
        let names = (guest?["disks"]?.arrayValue ?? []).compactMap(\.stringValue)
        let nodes = (guest?["nodes"]?.arrayValue ?? []).compactMap(\.stringValue)
        return zip(names, nodes).map { $0 == $1 ? $0 : "\($0) (\($1))" }
    }
    var snapshotCount: Int { list("snapshots").count }
    var nodes: [String] {
        list("nodes").reversed().compactMap { node in
            guard let name = node["node-name"]?.stringValue, !name.hasPrefix("#") else { return nil }
            let size = node["image"]?["virtual-size"]?.uint64Value.map { Units.bytes($0) } ?? "?"
            return "\(name)  \(node["drv"]?.stringValue ?? "?")  \(size)  \(node["file"]?.stringValue ?? "")"
        }
    }
    var trees: [String] { list("snapshot-exports").compactMap { $0["mountpoint"]?.stringValue } }
    var activeJobs: [String] {
        list("jobs").filter { $0["status"]?.stringValue != "concluded" }.map { job in
            "\(job["id"]?.stringValue ?? "?")  \(job["type"]?.stringValue ?? "?")  \(job["status"]?.stringValue ?? "?")"
        }
    }
    var pendingIntents: [String] {
        list("pending-intents").map { intent in
            let obstacles = (intent["obstacles"]?.arrayValue ?? []).compactMap(\.stringValue)
            let words = "\(intent["operation"]?.stringValue ?? "?") of '\(intent["tag"]?.stringValue ?? "?")'"
            return words + (obstacles.isEmpty ? "" : ": " + obstacles.joined(separator: "; "))
        }
    }
}

import QMPWire

/// One entry of `query-snapshots`, as the CLI shows it.
struct SnapshotSetView {
    let json: JSONValue
    let tag: String
    let uuid: String?
    let dateSeconds: Int64
    let stateByteCount: UInt64
    let nodes: [Node]
    let holders: [String]
    private let isMixed: Bool
    private let isComplete: Bool
    private let way: String?

    struct Node {
        let name: String
        let id: String
        let stateByteCount: UInt64
        let diskByteCount: UInt64
    }

    init?(_ json: JSONValue) {
        guard let tag = json["tag"]?.stringValue else { return nil }
        self.json = json
        self.tag = tag
        uuid = json["uuid"]?.stringValue
        dateSeconds = json["date-sec"]?.intValue.map { Int64($0) } ?? 0
        stateByteCount = json["vm-state-size"]?.uint64Value ?? 0
        isMixed = json["mixed"]?.boolValue ?? false
        isComplete = json["complete"]?.boolValue ?? true
        way = json["way"]?.stringValue
        holders = (json["holders"]?.arrayValue ?? []).compactMap(\.stringValue)
        nodes = (json["nodes"]?.arrayValue ?? []).map { node in
            Node(
                name: node["node-name"]?.stringValue ?? "?", id: node["id"]?.stringValue ?? "?",
                stateByteCount: node["vm-state-size"]?.uint64Value ?? 0,
                diskByteCount: node["disk-size"]?.uint64Value ?? 0)
        }
    }

    var nodeNames: [String] { nodes.map(\.name) }
    var stateNodeName: String? { nodes.first { $0.stateByteCount > 0 }?.name }

    /// What is out of the ordinary, in words.
    var notes: String {
        var notes: [String] = []
        if isMixed { notes.append("mixed: not of one save") } else if !isComplete { notes.append("not whole") }
        if let way { notes.append(way) }
        if !holders.isEmpty { notes.append("open") }
        return notes.joined(separator: ", ")
    }
}

import LinuxSystem
import QMPWire

/// Something that a command has made and that a restarted agent makes again: by the same command.
struct RecordedItem: Sendable, Equatable {
    enum Kind: String, Sendable {
        case object, node, server, export, guest, tree
    }

    let kind: Kind
    /// The node's name, the export's or tree's id; empty where there is one at most.
    let name: String
    let command: String
    let arguments: JSONObject
    /// The configuration or the command line asks for it, and not a client.
    var isConfigured = false
    /// A node that no client has added: it goes with its last user.
    var goesWithUsers = false

    /// Two things that cannot exist at once.
    func isRival(of other: RecordedItem) -> Bool { kind == other.kind && name == other.name }

    /// What a command with these arguments makes; nil if it is none that is recorded.
    init?(command: String, arguments: JSONObject, isConfigured: Bool = false) {
        switch command {
        case "object-add": (kind, name) = (.object, arguments["id"]?.stringValue ?? "")
        case "blockdev-add": (kind, name) = (.node, arguments["node-name"]?.stringValue ?? "")
        case "nbd-server-start": (kind, name) = (.server, "")
        case "block-export-add": (kind, name) = (.export, arguments["id"]?.stringValue ?? "")
        // Its export has the name as its id.
        case "nbd-server-add":
            (kind, name) = (.export, (arguments["name"] ?? arguments["device"])?.stringValue ?? "")
        case "guest-add": (kind, name) = (.guest, "")
        case "snapshot-export-add": (kind, name) = (.tree, arguments["id"]?.stringValue ?? "")
        default: return nil
        }
        self.command = command
        self.arguments = Self.absolute(.object(arguments)).objectValue ?? arguments
        self.isConfigured = isConfigured
    }

    /// Of an export.
    var shownNodeName: String? { arguments[Self.nodeMember(command)]?.stringValue }

    private static func nodeMember(_ command: String) -> String {
        command == "nbd-server-add" ? "device" : "node-name"
    }

    /// The same export of another node.
    func showing(nodeName: String) -> RecordedItem {
        var arguments = arguments
        // Clients know it by the name of its first node, where it was given none.
        let isNamed = command == "nbd-server-add" || arguments["type"]?.stringValue == "nbd"
        if isNamed, arguments["name"] == nil { arguments["name"] = shownNodeName.map { .string($0) } }
        arguments[Self.nodeMember(command)] = .string(nodeName)
        return RecordedItem(command: command, arguments: arguments, isConfigured: isConfigured) ?? self
    }

    /// The nodes that serve a guest's disks, by the name that the guest knows: of those that have another name.
    var movedDisks: [String: String] {
        var moved: [String: String] = [:]
        for disk in arguments["disks"]?.arrayValue ?? [] {
            if let name = disk["name"]?.stringValue { moved[name] = disk["node-name"]?.stringValue }
        }
        return moved
    }

    /// The same guest with its disks on these nodes.
    /// - Parameter overriding: also disks of which it is said that they have another node.
    func serving(_ nodeNames: [String: String], overriding: Bool) -> RecordedItem {
        guard let disks = arguments["disks"]?.arrayValue else { return self }
        var arguments = arguments
        arguments["disks"] = .array(
            disks.map { disk in
                guard let name = disk.stringValue ?? (overriding ? disk["name"]?.stringValue : nil),
                    let nodeName = nodeNames[name]
                else { return disk }
                if nodeName == name { return .string(name) }
                return ["name": .string(name), "node-name": .string(nodeName)]
            })
        return RecordedItem(command: command, arguments: arguments, isConfigured: isConfigured) ?? self
    }

    /// The command that takes away what this one has just made; nil for a guest, which is recorded before it is made.
    var inverse: (command: String, arguments: JSONObject)? {
        switch kind {
        case .object: ("object-del", ["id": .string(name)])
        case .node: ("blockdev-del", ["node-name": .string(name)])
        case .server: ("nbd-server-stop", [:])
        case .export: ("block-export-del", ["id": .string(name), "mode": "hard"])
        case .tree: ("snapshot-export-del", ["id": .string(name)])
        case .guest: nil
        }
    }

    private static let pathMembers: Set = ["filename", "path", "mountpoint", "log", "attach", "config"]

    /// With all paths absolute: the next agent may stand in another folder.
    private static func absolute(_ value: JSONValue) -> JSONValue {
        if let list = value.arrayValue { return .array(list.map(absolute)) }
        guard let object = value.objectValue else { return value }
        var made = JSONObject()
        for (key, member) in object {
            let path = pathMembers.contains(key) ? member.stringValue.flatMap { try? Files.absolutePath($0) } : nil
            made[key] = path.map { .string($0) } ?? absolute(member)
        }
        return .object(made)
    }
}

/// What a command takes away.
struct RecordedRemoval {
    let matches: @Sendable (RecordedItem) -> Bool

    /// nil if it takes nothing away that is recorded.
    init?(command: String, arguments: JSONObject) {
        func named(_ kind: RecordedItem.Kind, _ member: String) -> @Sendable (RecordedItem) -> Bool {
            let name = arguments[member]?.stringValue
            return { $0.kind == kind && $0.name == name }
        }
        switch command {
        case "object-del": matches = named(.object, "id")
        case "blockdev-del": matches = named(.node, "node-name")
        case "block-export-del": matches = named(.export, "id")
        case "nbd-server-remove": matches = named(.export, "name")
        case "snapshot-export-del": matches = named(.tree, "id")
        case "guest-del": matches = { $0.kind == .guest }
        case "nbd-server-stop":
            // Its exports go with it.
            matches = { item in
                item.kind == .server || item.command == "nbd-server-add"
                    || item.kind == .export && item.arguments["type"]?.stringValue == "nbd"
            }
        default: return nil
        }
    }
}

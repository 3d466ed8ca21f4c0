import ColdframeKit
import QAPI
import QMPWire

/// How the nodes stand on one another, as far as a job or a command has changed it: what a restarted agent needs to know
/// beside the commands that made the nodes.
struct GraphShape: Sendable, Equatable {
    struct Node: Sendable, Equatable {
        var name: String
        /// Of `blockdev-add`.
        var arguments: JSONObject
        /// No client has added it: it goes with its last user.
        var goesWithUsers = false
    }
    /// Nodes that stand otherwise than they were made, or that no command has made by itself.
    var nodes: [Node] = []
    /// Names of all nodes that are not defined inside another; each stands behind those that it refers to.
    var order: [String] = []
    /// Which node an export shows, by the export's id.
    var exports: [String: String] = [:]
    /// Which node serves a disk of the guest, by the name that the guest knows.
    var disks: [String: String] = [:]
    /// Nodes that went with their last user.
    var gone: [String] = []

    var json: JSONObject {
        [
            "nodes": .array(
                nodes.map {
                    [
                        "name": .string($0.name), "arguments": .object($0.arguments),
                        "goes-with-users": .bool($0.goesWithUsers),
                    ]
                }),
            "order": .array(order.map { .string($0) }),
            "exports": Self.json(exports), "disks": Self.json(disks), "gone": .array(gone.map { .string($0) }),
        ]
    }

    private static func json(_ names: [String: String]) -> JSONValue {
        .object(JSONObject(members: names.sorted { $0.key < $1.key }.map { ($0, .string($1)) }))
    }

    init() {}

    init?(json: JSONValue) {
        guard let nodes = json["nodes"]?.arrayValue, let order = json["order"]?.arrayValue,
            let exports = json["exports"]?.objectValue
        else { return nil }
        for node in nodes {
            guard let name = node["name"]?.stringValue, let arguments = node["arguments"]?.objectValue else {
                return nil
            }
            // Not in what earlier versions wrote, as `gone` and `disks`.
            let goes = node["goes-with-users"]?.boolValue ?? false
            self.nodes.append(Node(name: name, arguments: arguments, goesWithUsers: goes))
        }
        self.order = order.compactMap(\.stringValue)
        for (id, name) in exports { self.exports[id] = name.stringValue }
        gone = json["gone"]?.arrayValue?.compactMap(\.stringValue) ?? []
        for (disk, name) in json["disks"]?.objectValue ?? [:] { self.disks[disk] = name.stringValue }
    }
}

extension Graph {
    var shape: GraphShape {
        var shape = GraphShape()
        shape.gone = goneNames.filter { name in !nodes.contains { $0.name == name } }.sorted()
        var done: [GraphNode] = []
        func visit(_ node: GraphNode) {
            guard !done.contains(where: { $0 === node }) else { return }
            done.append(node)
            for child in node.children { child.node.map(visit) }
            guard node.standsAlone else { return }
            shape.order.append(node.name)
            if node.isReshaped || !node.isMonitorOwned, let arguments = node.definition(isRoot: true) {
                shape.nodes.append(
                    .init(name: node.name, arguments: arguments, goesWithUsers: !node.isMonitorOwned))
            }
        }
        for node in nodes where !node.isPrivate {
            visit(node)
            for use in node.uses {
                switch use.kind {
                case .export(let id): shape.exports[id] = (node.defined ?? node).name
                case .disk(let name, _): shape.disks[name] = (node.defined ?? node).name
                default: break
                }
            }
        }
        return shape
    }
}

extension GraphNode {
    /// The node itself, or what is shown by the filter of a job, which no command makes again.
    var defined: GraphNode? { options == nil ? filtered?.node.defined : self }

    /// Users beside jobs, seen through the filters of jobs.
    private var lastingUses: [NodeUse] {
        uses.flatMap { use -> [NodeUse] in
            if use.isJob { return [] }
            guard let parent = use.parent, parent.options == nil else { return [use] }
            return parent.filtered?.use === use ? parent.lastingUses : []
        }
    }

    /// It is not defined inside its one parent.
    fileprivate var standsAlone: Bool {
        if options == nil { return false }
        if isMonitorOwned { return true }
        let users = lastingUses
        return users.count > 1 || (users.first.map { $0.parent == nil } ?? false)
    }

    fileprivate var isReshaped: Bool {
        hasChanged
            || children.contains { edge in
                guard let child = edge.node?.defined else { return false }
                // One that was defined inside a node, and has another user now, is defined by itself.
                return child.standsAlone ? !child.isMonitorOwned : child.isReshaped
            }
    }

    /// The same as a value; nil for a job's filter.
    var currentOptions: BlockdevOptions? {
        definition(isRoot: true).flatMap { try? BlockdevOptions(QAPIInput(.object($0))) }
    }

    /// The options that it would be opened with now: those that it was opened with, and the children that it has.
    fileprivate func definition(isRoot: Bool) -> JSONObject? {
        guard var object = options?.object else { return nil }
        object["node-name"] = isRoot || !name.hasPrefix("#") ? .string(name) : nil
        var lists: [String: [JSONValue]] = [:]
        for edge in children {
            guard let child = edge.node?.defined else { continue }
            let value: JSONValue
            if child.standsAlone {
                value = .string(child.name)
            } else if let definition = child.definition(isRoot: false) {
                value = .object(definition)
            } else {
                continue
            }
            if let list = edge.listName { lists[list, default: []].append(value) } else { object[edge.role] = value }
        }
        for (name, list) in lists { object[name] = .array(list) }
        if backingUse == nil, block.driver is any Backed { object["backing"] = .null }
        return object
    }
}

extension NodeUse {
    /// Of the edge to one of a list of children, NAME.3: the list's name, which is an option of the parent.
    var listName: String? {
        guard let dot = role.lastIndex(of: "."), UInt(role[role.index(after: dot)...]) != nil else { return nil }
        return String(role[..<dot])
    }
}

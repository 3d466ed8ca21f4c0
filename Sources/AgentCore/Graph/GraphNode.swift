import ColdframeKit
import QAPI

/// A node of the graph with what only the core knows: who made it, its children and its users.
@AgentActor
final class GraphNode {
    nonisolated let block: BlockNode
    nonisolated var name: String { block.name }
    let options: BlockdevOptions?
    /// Made by `blockdev-add` itself, and so deleted by `blockdev-del` only; children that were defined inside their
    /// parent go with it.
    let isMonitorOwned: Bool
    /// A module's own (the barrier): not listed, not addressable.
    let isPrivate: Bool
    /// In the order in which the driver opened them.
    var children: [(name: String, node: GraphNode)] = []
    private(set) var uses: [NodeUse] = []

    init(block: BlockNode, options: BlockdevOptions?, isMonitorOwned: Bool, isPrivate: Bool) {
        self.block = block
        self.options = options
        self.isMonitorOwned = isMonitorOwned
        self.isPrivate = isPrivate
    }

    /// The image that shows through where this one has nothing, or what a filter filters.
    var backing: GraphNode? { children.first { $0.name == "backing" }?.node }

    /// Parents in the graph.
    var parents: [GraphNode] { uses.compactMap(\.parent) }

    /// The file at the bottom: the node's own, or that of the child that holds its image.
    var fileIdentity: FileIdentity? {
        if let backed = block.driver as? any FileBacked { return backed.fileIdentity }
        return children.first { $0.name == "file" }?.node.fileIdentity
    }

    /// Records a user after checking it against all others; QEMU's text on a conflict.
    func add(_ use: NodeUse) throws {
        for other in uses {
            try Self.check(use, against: other, node: name)
            try Self.check(other, against: use, node: name)
        }
        uses.append(use)
    }

    func remove(_ use: NodeUse) {
        uses.removeAll { $0 === use }
    }

    private static func check(_ needy: NodeUse, against other: NodeUse, node: String) throws {
        let conflict = needy.permissions.subtracting(other.shared)
        guard !conflict.isEmpty else { return }
        throw ColdframeError(
            .busy,
            "Permission conflict on node '\(node)': permissions '\(conflict.names)' are both required by "
                + "\(needy.user) (uses node '\(node)' as '\(needy.role)' child) and unshared by "
                + "\(other.user) (uses node '\(node)' as '\(other.role)' child).")
    }

    /// The driver as one with snapshots, or QEMU's text.
    func snapshotBearer() throws -> any SnapshotBearing {
        guard !block.isReadOnly else {
            throw ColdframeError(.permission, "Device '\(name)' is read only")
        }
        guard let bearer = block.driver as? any SnapshotBearing else {
            throw ColdframeError(
                .unsupported,
                "Block format '\(block.driver.driverName)' used by device '\(name)' does not support internal snapshots"
            )
        }
        return bearer
    }
}

/// One user of a node: a parent, an export, a guest, a job.
@AgentActor
final class NodeUse {
    enum Kind {
        case parent(GraphNode)
        /// A parent that is being opened, by its name.
        case opening(String)
        case export(String)
        case holder(String)
    }
    let kind: Kind
    /// The name of the edge: `file`, `backing`, `root`.
    let role: String
    let permissions: NodePermissions
    let shared: NodePermissions

    init(_ kind: Kind, role: String, permissions: NodePermissions, shared: NodePermissions) {
        self.kind = kind
        self.role = role
        self.permissions = permissions
        self.shared = shared
    }

    var parent: GraphNode? {
        if case .parent(let node) = kind { node } else { nil }
    }

    /// Who it is, in QEMU's words.
    var user: String {
        switch kind {
        case .parent(let node): "node '\(node.name)'"
        case .opening(let name): "node '\(name)'"
        case .export(let id): "block export '\(id)'"
        case .holder(let words): words
        }
    }
}

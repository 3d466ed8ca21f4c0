import ColdframeKit

/// One user of a node: a parent, an export, a guest, a job. Seen from the parent it is the edge to its child.
@AgentActor
final class NodeUse {
    enum Kind {
        case parent(GraphNode)
        /// A parent that is being opened, by its name.
        case opening(String)
        case export(String)
        case holder(String)
        /// A job, by its type; it blocks what would get in its way.
        case job(String)
        /// A job that writes a node by a way of its own, beside the filter.
        case jobTarget(String)
    }
    let kind: Kind
    /// The name of the edge: `file`, `backing`, `root`.
    let role: String
    fileprivate var ownPermissions: NodePermissions
    fileprivate var ownShared: NodePermissions
    /// What the user does its I/O with; it follows the use to another node. nil for one that does none.
    let handle: BlockNode?
    /// The node that is used; nil before it is added and after it is removed.
    fileprivate(set) weak var node: GraphNode?

    init(
        _ kind: Kind, role: String, permissions: NodePermissions, shared: NodePermissions, handle: BlockNode? = nil
    ) {
        self.kind = kind
        self.role = role
        ownPermissions = permissions
        ownShared = shared
        self.handle = handle
    }

    var parent: GraphNode? {
        if case .parent(let node) = kind { node } else { nil }
    }

    /// A parent that needs nothing of the node and forbids nothing.
    var isObserver: Bool { parent != nil && ownPermissions.isEmpty && ownShared == .all }

    /// A filter needs of its child what its own users need of it.
    fileprivate var throughFilter: GraphNode? {
        guard let parent, parent.isFilter, parent.filtered?.use === self else { return nil }
        return parent
    }

    var permissions: NodePermissions {
        guard let filter = throughFilter else { return ownPermissions }
        return filter.uses.reduce(ownPermissions) { $0.union($1.permissions) }
    }

    var shared: NodePermissions {
        guard let filter = throughFilter else { return ownShared }
        return filter.uses.reduce(ownShared) { $0.intersection($1.shared) }
    }

    /// Who it is, in QEMU's words.
    var user: String {
        switch kind {
        case .parent(let node): "node '\(node.name)'"
        case .opening(let name): "node '\(name)'"
        case .export(let id): "block export '\(id)'"
        case .holder(let words): words
        case .job(let type), .jobTarget(let type): "block job: \(type)"
        }
    }
}

extension GraphNode {
    /// Records a user after checking it against all others; QEMU's text on a conflict.
    func add(_ use: NodeUse) throws {
        try check(use)
        attach(use)
    }

    /// Changes what a user needs and what it allows, after checking that against all others.
    func change(_ use: NodeUse, permissions: NodePermissions, shared: NodePermissions) throws {
        let (oldPermissions, oldShared) = (use.ownPermissions, use.ownShared)
        (use.ownPermissions, use.ownShared) = (permissions, shared)
        do {
            try check(use, leavingOut: [use])
        } catch {
            (use.ownPermissions, use.ownShared) = (oldPermissions, oldShared)
            throw error
        }
    }

    /// Throws if a user who is not there yet would get in the way of one who is.
    func check(_ use: NodeUse, leavingOut ignored: [NodeUse] = []) throws {
        for other in uses where !ignored.contains(where: { $0 === other }) {
            // A job stands in nobody's way who comes through its own filter.
            if use.isJob && other.throughFilter != nil || other.isJob && use.throughFilter != nil { continue }
            try Self.check(use, against: other, node: name)
            try Self.check(other, against: use, node: name)
        }
        if isFilter, let (edge, child) = filtered { try child.check(use, leavingOut: ignored + [edge]) }
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

    private func attach(_ use: NodeUse) {
        uses.append(use)
        use.node = self
        for drain in drains {
            if let parent = use.parent {
                drain.cover(parent)
            } else if let handle = use.handle {
                drain.cover(handle.gate, of: self)
            }
        }
    }

    func remove(_ use: NodeUse) {
        uses.removeAll { $0 === use }
        if use.node === self { use.node = nil }
    }

    /// Puts users of this node on another one. Both are drained, so that the users' gates stay closed throughout.
    func move(_ moving: [NodeUse], to target: GraphNode) throws {
        for use in moving { try target.check(use) }
        for use in moving {
            remove(use)
            target.uses.append(use)
            use.node = target
            use.handle?.retarget(to: target.body)
            if let parent = use.parent {
                for drain in target.drains { drain.cover(parent) }
            }
        }
    }
}

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
        /// A guest's disk, by the name that the guest knows.
        case disk(String, of: String)
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
    /// The edge of a filter that promises its users what is below: a commit, which changes the images there.
    private let hidesContent: Bool
    /// It needs of its child what the parent's own users need of the parent.
    let followsUsers: Bool
    /// What the user does its I/O with; it follows the use to another node. nil for one that does none.
    let handle: BlockNode?
    /// Of a job: its filter. Those who come through it do not stand in the job's way, nor it in theirs.
    private(set) weak var filter: GraphNode?
    /// The node that is used; nil before it is added and after it is removed.
    private(set) weak var node: GraphNode?

    init(
        _ kind: Kind, role: String, permissions: NodePermissions, shared: NodePermissions, handle: BlockNode? = nil,
        hidesContent: Bool = false, followsUsers: Bool = false, filter: GraphNode? = nil
    ) {
        self.kind = kind
        self.role = role
        ownPermissions = permissions
        ownShared = shared
        self.handle = handle
        self.hidesContent = hidesContent
        self.followsUsers = followsUsers
        self.filter = filter
    }

    /// The same use, which needs more and forbids more than its role says.
    func demanding(_ permissions: NodePermissions, forbidding: NodePermissions) -> NodeUse {
        ownPermissions.formUnion(permissions)
        ownShared.subtract(forbidding)
        return self
    }

    /// The same use with a handle of its own, for another node.
    func copied(handle: BlockNode) -> NodeUse {
        NodeUse(
            kind, role: role, permissions: ownPermissions, shared: ownShared, handle: handle,
            hidesContent: hidesContent, followsUsers: followsUsers, filter: filter)
    }

    var parent: GraphNode? {
        if case .parent(let node) = kind { node } else { nil }
    }

    /// A parent that needs nothing of the node and forbids nothing.
    var isObserver: Bool { parent != nil && ownPermissions.isEmpty && ownShared == .all }

    /// Of the job that it is, or nil.
    var jobType: String? {
        switch kind {
        case .job(let type), .jobTarget(let type): type
        default: nil
        }
    }

    var isJob: Bool { jobType != nil }

    /// It leaves the node a root in QEMU's sense.
    var isOfRoot: Bool {
        switch kind {
        case .parent, .job: false
        default: true
        }
    }

    /// A filter needs of its child what its own users need of it.
    fileprivate var throughFilter: GraphNode? {
        guard let parent, parent.isFilter, parent.filtered?.use === self else { return nil }
        return parent
    }

    /// What its own parent's users need and forbid counts here too.
    var dependsOnUsers: Bool { followsUsers || throughFilter != nil || parent?.backingUse === self }

    /// What it needs and forbids, with the wishes of those above it, but for what comes through `filter`. `more` is a
    /// user of its parent who is not there yet.
    fileprivate func demand(with more: NodeDemand? = nil, leavingOut filter: GraphNode? = nil) -> NodeDemand {
        var demand = NodeDemand(user: user, role: role, permissions: ownPermissions, shared: ownShared)
        guard let parent else { return demand }
        if parent === filter {
            if throughFilter != nil { (demand.permissions, demand.shared) = ([], .all) }
            return demand
        }
        let above = parent.uses.map { $0.demand(leavingOut: filter) } + (more.map { [$0] } ?? [])
        if followsUsers || throughFilter != nil {
            for user in above {
                demand.permissions.formUnion(user.permissions)
                demand.shared.formIntersection(user.shared)
            }
            if hidesContent {
                demand.permissions.formIntersection([.write, .resize])
                demand.shared = .all
            }
        } else if parent.backingUse === self {
            // A backing image is read if the overlay is, and may change under it if nobody minds.
            if above.contains(where: { $0.permissions.contains(.consistentRead) }) {
                demand.permissions = .consistentRead
            } else {
                demand.permissions = []
            }
            demand.shared = [.consistentRead, .writeUnchanged]
            if above.allSatisfy({ $0.shared.contains(.write) }) { demand.shared.formUnion([.write, .resize]) }
        }
        return demand
    }

    var permissions: NodePermissions { demand().permissions }
    var shared: NodePermissions { demand().shared }

    /// Who it is, in QEMU's words.
    var user: String {
        switch kind {
        case .parent(let node): "node '\(node.name)'"
        case .opening(let name): "node '\(name)'"
        case .export(let id): "block export '\(id)'"
        case .holder(let words), .disk(_, of: let words): words
        case .job(let type), .jobTarget(let type): "block job: \(type)"
        }
    }
}

/// What one user of a node needs to do, and what it lets others do.
struct NodeDemand {
    var user: String
    var role: String
    var permissions: NodePermissions
    var shared: NodePermissions

    /// QEMU's text if the other forbids what this one needs.
    fileprivate func check(against other: NodeDemand, node: String) throws {
        let conflict = permissions.subtracting(other.shared)
        guard !conflict.isEmpty else { return }
        throw ColdframeError(
            .busy,
            "Permission conflict on node '\(node)': permissions '\(conflict.names)' are both required by "
                + "\(user) (uses node '\(node)' as '\(role)' child) and unshared by "
                + "\(other.user) (uses node '\(node)' as '\(other.role)' child).")
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

    /// Throws if a user who is not there yet would get in the way of one who is, here or below.
    func check(_ use: NodeUse, leavingOut ignored: [NodeUse] = []) throws {
        let isExport = if case .export = use.kind { true } else { false }
        try check(leavingOut: ignored, own: use.filter, isExport: isExport) { use.demand(leavingOut: $0) }
    }

    /// - Parameters:
    ///   - own: the filter of the job that is checked.
    ///   - isExport: it is an export that comes.
    ///   - edge: through which it comes; nil for a user of the node itself.
    ///   - demand: what is needed and forbidden, but for what comes through a filter.
    private func check(
        leavingOut ignored: [NodeUse], own: GraphNode?, isExport: Bool = false, edge: NodeUse? = nil,
        _ demand: (_ filter: GraphNode?) -> NodeDemand
    ) throws {
        let place = edge.flatMap { edge in uses.firstIndex { $0 === edge } } ?? uses.endIndex
        for (index, use) in uses.enumerated() where !ignored.contains(where: { $0 === use }) {
            let (needed, other) = (demand(use.filter), use.demand(leavingOut: own))
            // QEMU looks at what the newest forbids first; an export forbids nothing before it is there.
            if isExport || index > place { try needed.check(against: other, node: name) }
            try other.check(against: needed, node: name)
            try needed.check(against: other, node: name)
        }
        for edge in children where edge.dependsOnUsers {
            guard let child = edge.node else { continue }
            try child.check(leavingOut: ignored + [edge], own: own, edge: edge) { filter in
                // Who comes to the filter itself comes through it.
                edge.demand(with: edge.parent === filter ? nil : demand(filter), leavingOut: filter)
            }
        }
    }

    /// Without a check: for a user who was here before.
    func attach(_ use: NodeUse) {
        uses.append(use)
        use.moves(to: self)
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
        if use.node === self { use.moves(to: nil) }
    }

    /// Puts users of another node on this one. Both are drained, so that the users' gates stay closed throughout.
    func take(_ moving: [NodeUse], from node: GraphNode) throws {
        try node.checkMovable(moving)
        for use in moving { try check(use, leavingOut: moving.filter { $0 !== use }) }
        takeUnchecked(moving, from: node)
    }

    func takeUnchecked(_ moving: [NodeUse], from node: GraphNode) {
        for use in moving {
            node.remove(use)
            uses.append(use)
            use.moves(to: self)
            use.handle?.retarget(to: body)
            if let parent = use.parent {
                for drain in drains { drain.cover(parent) }
            }
        }
    }
}

extension NodeUse {
    fileprivate func moves(to node: GraphNode?) { self.node = node }
}

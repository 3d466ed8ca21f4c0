import ColdframeKit

/// Changes of backing chains. The nodes are drained by the caller, and nothing suspends here: no user sees a state in
/// between.
extension Graph {
    /// Puts another image, or none, below a node. A throw changes nothing.
    func setBacking(of node: GraphNode, to backing: GraphNode?) throws {
        guard let driver = node.block.driver as? any Backed else {
            throw ColdframeError(
                .unsupported,
                "Driver '\(node.block.driver.driverName)' of node '\(node.name)' does not support backing files")
        }
        let previous = node.backingUse
        guard previous?.node !== backing else { return }
        try node.checkBackingMovable()
        var use: NodeUse?
        if let backing {
            guard !backing.reaches(node) else {
                throw ColdframeError(
                    .invalidArgument,
                    "Making '\(backing.name)' a backing child of '\(node.name)' would create a cycle")
            }
            let edge = NodeUse(
                .parent(node), role: "backing", permissions: .consistentRead,
                shared: [.consistentRead, .writeUnchanged], handle: BlockNode(backing.body))
            let old = node.children
            node.children.removeAll { $0 === previous }
            node.children.append(edge)
            do { try backing.check(edge, leavingOut: previous.map { [$0] } ?? []) } catch {
                node.children = old
                throw error
            }
            backing.attach(edge)
            use = edge
        } else {
            node.children.removeAll { $0 === previous }
        }
        if let previous { previous.node?.remove(previous) }
        driver.setBacking(use?.handle)
        node.hasChanged = true
    }

    /// Puts an overlay above a node: those who used the node use the overlay, which shows the node.
    /// Returns the users that moved.
    func append(_ overlay: GraphNode, above node: GraphNode) throws -> [NodeUse] {
        let moving = node.uses.filter { !$0.isJob && !($0.parent.map { overlay.reaches($0) } ?? false) }
        if overlay.block.isReadOnly, moving.contains(where: { $0.permissions.contains(.write) }) {
            throw ColdframeError(.permission, "Block node is read-only")
        }
        try node.checkMovable(moving)
        try setBacking(of: overlay, to: node)
        do {
            // What the users need is needed of the overlay, and read of the node below.
            for use in moving { try overlay.check(use, leavingOut: moving) }
        } catch {
            try? setBacking(of: overlay, to: nil)
            throw error
        }
        overlay.takeUnchecked(moving, from: node)
        for use in moving { use.parent?.hasChanged = true }
        return moving
    }

    /// Takes an overlay away again that nothing was written to.
    func unappend(_ overlay: GraphNode, above node: GraphNode, _ moved: [NodeUse]) {
        node.takeUnchecked(moved.filter { $0.node === overlay }, from: overlay)
        try? setBacking(of: overlay, to: nil)
    }

    /// Takes a use off the node that it is on by now. Whoever else gave that node up meanwhile may have left it to this one.
    func end(_ use: NodeUse) async {
        guard let node = use.node else { return }
        node.remove(use)
        await letGo(node)
    }

    /// Closes a node that no client owns and that nobody uses any more, with what only it used.
    func letGo(_ node: GraphNode) async {
        guard !node.isMonitorOwned, !node.isPrivate, node.uses.isEmpty, nodes.contains(where: { $0 === node }) else {
            return
        }
        // Its last user is gone, and has heard of what went wrong.
        try? await close(node)
        goneNames.insert(node.name)
        // Where that fails a restarted agent opens the node again, which does no harm.
        try? await recordShape()
    }
}

extension GraphNode {
    /// The other node is this one, or somewhere below it.
    func reaches(_ other: GraphNode) -> Bool {
        other === self || children.contains { $0.node?.reaches(other) ?? false }
    }

    /// The node and what shows through it, from top to bottom, filters included.
    var chain: [GraphNode] {
        var found: [GraphNode] = []
        var current: GraphNode? = self
        while let node = current {
            found.append(node)
            current = node.below
        }
        return found
    }

    /// The images of the chain, without filters.
    var layers: [GraphNode] { chain.filter { !$0.isFilter } }
}

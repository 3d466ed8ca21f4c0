import ColdframeKit
import QAPI

/// The children of nodes that are reopened. They are put where they are to be before any driver is, and looked at when all of
/// them are there: what two nodes exchange is for a moment in the hands of both. Nothing suspends here.
@AgentActor
final class ReopenedEdges {
    private typealias Edge = (use: NodeUse, child: GraphNode?)
    /// Nodes with the edges that they had.
    private var former: [(node: GraphNode, edges: [Edge])] = []
    /// Children that they had, which their drivers write to until they are closed, are kept from all others.
    private var held: [(child: GraphNode, use: NodeUse)] = []

    func place(_ change: Reopening.Change) {
        let node = change.node
        if edges(of: node) == nil { former.append((node, node.children.map { ($0, $0.node) })) }
        switch change.backing {
        case nil: break
        case .none?: put(nil, on: nil, insteadOf: node.backingUse, of: node)
        case .node(let backing)?:
            let use = NodeOpening.use(
                .parent(node), name: "backing", role: .backing, mayWrite: false, handle: BlockNode(backing.body))
            put(use, on: backing, insteadOf: node.backingUse, of: node)
        }
        if let file = change.file, let old = node.children.first(where: { $0.role == "file" }) {
            put(old.copied(handle: BlockNode(file.body)), on: file, insteadOf: old, of: node)
        }
    }

    /// Gives the edges the permissions of what the nodes will be. QEMU's text if they cannot be together.
    func check(_ changes: [Reopening.Change]) throws {
        for change in changes { try adaptAccess(change, changes) }
        for change in changes where change.options.readOnly ?? false && !change.node.block.isReadOnly {
            try change.node.checkNobodyWrites()
        }
        for (node, edges) in former {
            for use in node.children where !edges.contains(where: { $0.use === use }) {
                guard let child = use.node else { continue }
                let isWritten = !use.permissions.isDisjoint(with: [.write, .writeUnchanged])
                if isWritten, willBeReadOnly(child, below: node, changes) { throw GraphNode.readOnlyError }
                try child.check(use, leavingOut: [use])
            }
        }
    }

    /// In the turn in which the edges were placed: nobody has come in between.
    func holdFormerOnes() {
        for (node, edges) in former {
            for child in edges.compactMap(\.child) where !children(of: node).contains(where: { $0 === child }) {
                let use = NodeUse(.holder("blockdev-reopen"), role: "root", permissions: [], shared: [])
                child.attach(use)
                held.append((child, use))
            }
        }
    }

    func letFormerOnesGo() {
        for (child, use) in held { child.remove(use) }
        held = []
    }

    /// All nodes have the children that they had, by the same edges.
    func takeBack() {
        letFormerOnesGo()
        for (node, edges) in former {
            for use in node.children { use.node?.remove(use) }
            node.children = edges.map(\.use)
        }
        for (use, child) in former.flatMap(\.edges) {
            guard let child else { continue }
            child.attach(use)
            // It may have been opened anew meanwhile.
            use.handle?.retarget(to: child.body)
        }
    }

    // MARK: What was there

    func children(of node: GraphNode) -> [GraphNode] { node.children.compactMap(\.node) }

    func formerChildren(of node: GraphNode) -> [GraphNode] {
        edges(of: node)?.compactMap(\.child) ?? children(of: node)
    }

    /// The file at the bottom, as `GraphNode.fileIdentity`.
    func formerImage(of node: GraphNode) -> FileIdentity? {
        if let backed = node.block.driver as? any FileBacked { return backed.fileIdentity }
        let edges = self.edges(of: node) ?? node.children.map { ($0, $0.node) }
        let edge = node.isFilter ? edges.first : edges.first { $0.use.role == "file" }
        return edge?.child.flatMap { formerImage(of: $0) }
    }

    /// Nodes whose image is another now.
    func withOtherImages(_ nodes: [GraphNode]) -> [GraphNode] {
        nodes.filter { formerImage(of: $0) != $0.fileIdentity }
    }

    /// Edges to what a node has beside its image (an external data file, a sidecar, the members of a quorum) that lead to another
    /// image now.
    func toOtherParts(_ nodes: [GraphNode]) -> [(node: GraphNode, part: NodeUse)] {
        nodes.flatMap { node in
            let image = node.filtered?.use ?? node.children.first { $0.role == "file" }
            return node.children.filter { edge in
                guard edge !== image, edge !== node.backingUse, let child = edge.node else { return false }
                return formerImage(of: child) != child.fileIdentity
            }.map { (node, $0) }
        }
    }

    /// Children that the nodes had, each once; some of them still have them.
    var formerOnes: [GraphNode] {
        former.flatMap(\.edges).compactMap(\.child).reduce(into: []) { found, child in
            if !found.contains(where: { $0 === child }) { found.append(child) }
        }
    }

    /// Behind the close of what wrote to them.
    func tellOwnership() async throws {
        for child in formerOnes { try await child.tellOwnership() }
        for child in former.flatMap({ children(of: $0.node) }) { try await child.tellOwnership() }
    }

    private func edges(of node: GraphNode) -> [Edge]? { former.first { $0.node === node }?.edges }

    // MARK: Edges

    private func put(_ new: NodeUse?, on child: GraphNode?, insteadOf old: NodeUse?, of node: GraphNode) {
        let index = old.flatMap { old in node.children.firstIndex { $0 === old } } ?? node.children.endIndex
        if let old, index < node.children.endIndex {
            node.children.remove(at: index)
            let child = old.node
            child?.remove(old)
            // They may have it to themselves now, or no more.
            child?.parents.forEach { $0.hasChanged = true }
        }
        if let new, let child {
            node.children.insert(new, at: index)
            child.attach(new)
            child.parents.forEach { $0.hasChanged = true }
        }
        node.hasChanged = true
    }

    /// A node that becomes read-only does not write to its children any more, and the other way round.
    private func adaptAccess(_ change: Reopening.Change, _ changes: [Reopening.Change]) throws {
        let (node, options) = (change.node, change.options)
        let isReadOnly = options.readOnly ?? false
        for use in node.children where use !== node.backingUse && !use.dependsOnUsers {
            guard let child = use.node else { continue }
            let childIsReadOnly = willBeReadOnly(child, below: node, changes)
            if childIsReadOnly, !isReadOnly, !(options.autoReadOnly ?? false) { throw GraphNode.readOnlyError }
            let new = NodeOpening.use(
                .parent(node), name: use.role, role: .image, mayWrite: !isReadOnly && !childIsReadOnly,
                handle: use.handle)
            put(new, on: child, insteadOf: use, of: node)
        }
    }

    private func willBeReadOnly(
        _ child: GraphNode, below parent: GraphNode, _ changes: [Reopening.Change]
    ) -> Bool {
        let own = changes.first { $0.node === child }?.options
        if let isReadOnly = own?.readOnly, isReadOnly { return true }
        if own == nil, !child.isMonitorOwned, let above = changes.first(where: { $0.node === parent }) {
            // It is switched with its parent.
            return above.options.readOnly ?? false
        }
        if let (_, below) = child.filtered, own != nil || child.options?.readOnly != true {
            return willBeReadOnly(below, below: child, changes)
        }
        return own == nil ? child.block.isReadOnly : false
    }
}

extension GraphNode {
    static var readOnlyError: ColdframeError { ColdframeError(.permission, "Block node is read-only") }

    /// Throws, with QEMU's text, if a node that is to be read-only has a user who writes.
    func checkNobodyWrites() throws {
        guard uses.contains(where: { !$0.permissions.isDisjoint(with: [.write, .writeUnchanged]) }) else { return }
        throw ColdframeError(.permission, "Read-only block node '\(name)' cannot support read-write users")
    }

    /// Of some nodes, each behind those of them that it stands on.
    static func childrenFirst<Item>(
        _ items: [Item], _ node: @AgentActor (Item) -> GraphNode, _ children: @AgentActor (GraphNode) -> [GraphNode]
    ) -> [Item] {
        var seen: Set<ObjectIdentifier> = []
        var sorted: [Item] = []
        func visit(_ visited: GraphNode) {
            guard seen.insert(ObjectIdentifier(visited)).inserted else { return }
            for child in children(visited) { visit(child) }
            for item in items where node(item) === visited { sorted.append(item) }
        }
        for item in items { visit(node(item)) }
        return sorted
    }
}

import ColdframeKit

// A filter may rely on the chain from it down to an image (`copy-on-read` with `bottom`): until it is gone nothing there is taken
// away, and nothing is put in between.

extension GraphNode {
    /// The edge to the node below in the chain.
    fileprivate var edgeBelow: NodeUse? { filtered?.use ?? backingUse }

    /// The nodes of the chain above `bottom`.
    private func chain(above bottom: GraphNode) -> ArraySlice<GraphNode> { chain.prefix { $0 !== bottom } }

    fileprivate func freezes(_ edge: NodeUse) -> Bool {
        guard let frozenBottom else { return false }
        return chain(above: frozenBottom).contains { $0.edgeBelow === edge }
    }

    /// Throws, with QEMU's text, if the node is about to come to stand under something else than those who rely on it want.
    func checkMovable(_ moving: [NodeUse]) throws {
        for use in moving where use.isFrozen {
            throw ColdframeError(.permission, "Cannot change '\(use.role)' link to '\(name)'")
        }
    }

    /// Throws, with QEMU's text, if the image below cannot be changed for another.
    func checkBackingMovable() throws {
        if let edge = backingUse { try checkMovable(edge) }
    }

    /// The same for the node at the other end of an edge of this one.
    func checkMovable(_ edge: NodeUse) throws {
        guard edge.isFrozen else { return }
        throw ColdframeError(
            .permission, "Cannot change frozen '\(edge.role)' link from '\(name)' to '\(edge.node?.name ?? "")'")
    }

    /// Throws, with QEMU's text, if somebody relies on a link of the chain from the node down to `bottom`.
    func checkThawed(downTo bottom: GraphNode) throws {
        for node in chain(above: bottom) {
            guard let edge = node.edgeBelow, edge.isFrozen else { continue }
            throw ColdframeError(
                .permission, "Cannot change '\(edge.role)' link from '\(node.name)' to '\(edge.node?.name ?? "")'")
        }
    }

    /// Throws if a node `parent`, whose first child under the name `role` this one is to be, cannot have the chain to itself down to
    /// `bottom`: somebody else relies on it, or a job is at work there. Returns the images of it, from top to bottom.
    func checkFreezable(downTo bottom: GraphNode, as role: String) throws -> [GraphNode] {
        guard chain.contains(where: { $0 === bottom }) else {
            throw ColdframeError(
                .invalidArgument, "Node '\(bottom.name)' is not in a chain starting from '\(name)'")
        }
        try checkThawed(downTo: bottom)
        let nodes = Array(chain(above: bottom)) + [bottom]
        for (index, node) in nodes.enumerated() {
            let link = index == 0 ? role : nodes[index - 1].edgeBelow?.role ?? ""
            if node.isFilter, node.options == nil {
                throw ColdframeError(.permission, "Cannot freeze '\(link)' link to '\(node.name)'")
            }
            if index > 0, node.uses.contains(where: \.isJob) {
                throw ColdframeError(
                    .busy, "Cannot change '\(link)' link from '\(nodes[index - 1].name)' to '\(node.name)'")
            }
        }
        return nodes.filter { !$0.isFilter }
    }
}

extension NodeUse {
    /// A filter above it relies on it.
    var isFrozen: Bool {
        guard let parent, parent.edgeBelow === self else { return false }
        return ([parent] + parent.ancestors).contains { $0.freezes(self) }
    }
}

extension GraphNode {
    /// Whether another node that holds what this one shows may take the place of `node` without anybody seeing another disk: it is
    /// this node or is shown by it, or it is one of several that a vote is taken of and nobody else has it (QEMU's rule).
    func canReplace(_ node: GraphNode) -> Bool {
        if node === self { return true }
        let shown = children.filter { $0.followsUsers || $0 === filtered?.use }
        // What several hold that a filter shows is the same. Other nodes may show what one of them does not hold: nobody may have
        // seen that one, and what is below it is no business of theirs.
        if isFilter { return shown.contains { $0.node?.canReplace(node) ?? false } }
        return shown.contains { $0.node === node } && node.uses.count == 1
    }
}

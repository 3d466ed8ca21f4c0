import ColdframeKit
import QAPI

/// Filters that jobs put above nodes, and take away again.
extension Graph {
    /// What a job's filter is made with.
    struct FilterRequest {
        /// nil for a name of the graph's own.
        var name: String?
        /// Before the error that the name cannot be taken.
        var nameErrorPrefix = ""
        /// Edge to the node that it shows.
        var role: String
        /// It promises its users what is below, where images are changed.
        var hidesContent = false
        /// Another child that it writes, with the name of the edge.
        var target: (node: GraphNode, role: String)?
    }

    /// Puts a filter above a node, between it and all its users but `ignored`. The node is drained by the caller, and
    /// nothing suspends here: no user sees a state in between.
    func insertFilter(
        _ request: FilterRequest, above node: GraphNode, leavingOut ignored: [NodeUse] = [],
        make: (_ source: BlockNode, _ target: BlockNode?) -> any BlockDriver
    ) throws -> GraphNode {
        let name: String
        do { name = try claimName(request.name) } catch {
            let error = ColdframeError(wrapping: error)
            throw ColdframeError(error.code, request.nameErrorPrefix + error.message)
        }
        defer { release(name: name) }
        let source = BlockNode(node.body)
        let target = request.target.map { BlockNode($0.node.body) }
        let filter = GraphNode(
            body: NodeBody(name: name, driver: make(source, target)), options: nil, isMonitorOwned: false,
            isPrivate: false, isFilter: true)
        if let (targetNode, role) = request.target {
            let use = NodeUse(
                // What is below the target may be the very disk that is written.
                .parent(filter), role: role, permissions: .write, shared: .all.subtracting(.resize), handle: target)
            // The filter's first child is the one that it shows.
            filter.children.append(use)
            try targetNode.add(use)
        }
        // What is below the filter stays below the node: a target whose backing image the node is, would be above itself.
        let moving = node.uses.filter { use in
            !ignored.contains { $0 === use } && !(use.parent.map { filter.reaches($0) } ?? false)
        }
        let edge = NodeUse(
            .parent(filter), role: request.role, permissions: .consistentRead, shared: .all, handle: source,
            hidesContent: request.hidesContent)
        filter.children.insert(edge, at: 0)
        do {
            try node.check(edge)
            try filter.take(moving, from: node)
            try node.add(edge)
        } catch {
            node.takeUnchecked(filter.uses, from: filter)
            for use in filter.children { use.node?.remove(use) }
            throw error
        }
        adopt(filter)
        return filter
    }

    /// Takes a filter away at once that was put in just now: no request has passed it.
    func dropFilter(_ filter: GraphNode) {
        guard let (edge, node) = filter.filtered else { return }
        node.remove(edge)
        node.takeUnchecked(filter.uses.filter { !$0.isJob }, from: filter)
        for use in filter.children { use.node?.remove(use) }
        forget(filter)
    }

    /// Takes a filter away: its users are on what it showed. The filter is drained by the caller.
    func removeFilter(_ filter: GraphNode) async {
        guard let (edge, node) = filter.filtered else { return }
        node.remove(edge)
        filter.children.removeFirst()
        node.takeUnchecked(filter.uses.filter { !$0.isJob }, from: filter)
        // A job's filter has nothing of its own to close, and nothing can be lost.
        forget(filter)
        try? await leaveChildren(of: filter)
    }
}

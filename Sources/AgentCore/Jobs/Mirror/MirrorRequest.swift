import ColdframeKit
import QAPI

/// What a mirror was asked for, checked as QEMU checks it, in its order and with its texts.
@AgentActor
struct MirrorRequest {
    let arguments: BlockdevMirrorArguments
    let source: GraphNode
    let target: GraphNode
    let granularity: UInt32?
    /// Nothing is copied but what is written from now on.
    let copiesNothingAtFirst: Bool

    init(_ arguments: BlockdevMirrorArguments, graph: Graph) throws {
        self.arguments = arguments
        source = try graph.findRoot(arguments.device)
        target = try graph.find(deviceOrNode: arguments.target)
        granularity = arguments.granularity.flatMap { $0 == 0 ? nil : $0 }
        if let granularity {
            guard granularity >= 512, granularity <= 64 << 20 else {
                throw ColdframeError(
                    .invalidArgument, "Parameter 'granularity' expects a value in range [512B, 64MB]")
            }
            guard granularity.nonzeroBitCount == 1 else {
                throw ColdframeError(.invalidArgument, "Parameter 'granularity' expects a power of 2")
            }
        }
        try source.checkUnblocked(for: .mirrorSource)
        try target.checkUnblocked(for: .mirrorTarget)
        copiesNothingAtFirst = arguments.sync == .none
        if let name = arguments.replaces { try checkReplaceable(name, graph: graph) }
        guard arguments.sync != .incremental, arguments.sync != .bitmap else {
            throw ColdframeError(
                .invalidArgument, "Sync mode '\(arguments.sync.rawValue)' not supported")
        }
        guard arguments.bufSize ?? 0 >= 0 else {
            throw ColdframeError(.invalidArgument, "Invalid parameter 'buf-size'")
        }
        guard source.withoutFilters !== target.withoutFilters else {
            throw ColdframeError(.invalidArgument, "Can't mirror node into itself")
        }
        if arguments.sync == .top, source.backing != nil {
            guard source.withoutFilters.block.driver is any Layered else {
                throw ColdframeError(
                    .unsupported,
                    "Driver '\(source.block.driver.driverName)' does not tell what the topmost image holds: use sync full"
                )
            }
        }
    }

    private func checkReplaceable(_ name: String, graph: Graph) throws {
        guard let node = graph.find(nodeName: name) else {
            throw ColdframeError(.notFound, "Failed to find node with node-name='\(name)'")
        }
        try node.checkUnblocked(for: .replace)
        guard source.shows(node) else {
            throw ColdframeError(
                .invalidArgument,
                "Cannot replace '\(name)' by a node mirrored from '\(source.name)', because it cannot be guaranteed "
                    + "that doing so would not lead to an abrupt change of visible data")
        }
        guard node.block.byteCount == source.block.byteCount else {
            throw ColdframeError(
                .invalidArgument, "cannot replace image with a mirror image of different size")
        }
    }
}

extension GraphNode {
    /// It is the node, or shows nothing but it through filters.
    func shows(_ node: GraphNode) -> Bool {
        var current: GraphNode? = self
        while let here = current {
            if here === node { return true }
            current = here.filtered?.node
        }
        return false
    }
}

extension Graph {
    /// For commands that need a node without parents; QEMU's texts.
    func findRoot(_ name: String) throws -> GraphNode {
        let node = try find(deviceOrNode: name)
        guard node.parents.isEmpty else { throw ColdframeError(.busy, "Need a root block node") }
        return node
    }
}

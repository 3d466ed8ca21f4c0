import ColdframeKit
import QAPI

/// What a commit was asked for, checked as QEMU checks it, in its order and with its texts.
@AgentActor
struct CommitRequest {
    let arguments: BlockCommitArguments
    /// The node at the top of the chain.
    let device: GraphNode
    let top: GraphNode
    let base: GraphNode
    /// The top is written by somebody, or is the topmost image: its users go to the base at the end.
    let isActive: Bool

    init(_ arguments: BlockCommitArguments, graph: Graph) async throws {
        self.arguments = arguments
        guard let device = graph.find(nodeName: arguments.device) else {
            // Clients probe by this class.
            throw ColdframeError(.deviceNotFound, "Device '\(arguments.device)' not found")
        }
        self.device = device
        guard device.isRoot else { throw ColdframeError(.busy, "Need a root block node") }
        try device.checkUnblocked(for: .commitSource)
        let top = try await Self.top(arguments, device, graph: graph)
        self.top = top
        let base = try await Self.base(arguments, top, graph: graph)
        self.base = base
        let chain = top.chain
        for node in chain.prefix(while: { $0 !== base }) + [base] { try node.checkUnblocked(for: .commitTarget) }
        guard top !== base else { throw ColdframeError(.invalidArgument, "cannot commit an image into itself") }
        let isTopmost = top.withoutFilters === device.withoutFilters
        isActive = isTopmost || top.uses.contains { $0.permissions.contains(.write) }
        if isActive, arguments.backingFile != nil {
            throw ColdframeError(
                .invalidArgument,
                isTopmost
                    ? "'backing-file' specified, but 'top' is the active layer"
                    : "'backing-file' specified, but 'top' has a writer on it")
        }
        if !isActive, top.withoutFilters === base.withoutFilters {
            throw ColdframeError(.invalidArgument, "Invalid files for merge: top and base are the same")
        }
        try top.checkMovable(top.uses)
        try top.checkThawed(downTo: base)
    }

    private static func top(
        _ arguments: BlockCommitArguments, _ device: GraphNode, graph: Graph
    ) async throws -> GraphNode {
        if arguments.topNode != nil, arguments.top != nil {
            throw ColdframeError(.invalidArgument, "'top-node' and 'top' are mutually exclusive")
        }
        if let name = arguments.topNode {
            let node = try graph.find(nodeOnly: name)
            guard device.chain.contains(where: { $0 === node }) else {
                throw ColdframeError(.invalidArgument, "'\(name)' is not in this backing file chain")
            }
            return node
        }
        if let filename = arguments.top, filename != device.block.driver.displayFilename {
            guard let node = await device.backing(named: filename) else {
                throw ColdframeError(.notFound, "Top image file \(filename) not found")
            }
            return node
        }
        return device
    }

    private static func base(
        _ arguments: BlockCommitArguments, _ top: GraphNode, graph: Graph
    ) async throws -> GraphNode {
        if arguments.baseNode != nil, arguments.base != nil {
            throw ColdframeError(.invalidArgument, "'base-node' and 'base' are mutually exclusive")
        }
        if let name = arguments.baseNode {
            let node = try graph.find(nodeOnly: name)
            guard top.chain.contains(where: { $0 === node }) else {
                throw ColdframeError(.invalidArgument, "'\(name)' is not in this backing file chain")
            }
            return node
        }
        if let filename = arguments.base {
            guard let node = await top.backing(named: filename) else {
                throw ColdframeError(.notFound, "Can't find '\(filename)' in the backing chain")
            }
            return node
        }
        return top.layers.last ?? top
    }

    /// What goes out of the chain, from the top to above the base, with the filters.
    var taken: [GraphNode] { Array(top.chain.prefix { $0 !== base }) }

    /// The images of it.
    var images: [GraphNode] { taken.filter { !$0.isFilter && $0 !== base.withoutFilters } }

    /// Images whose internal snapshots show what the base holds now. Those above the top show through it what they showed.
    var dependents: [GraphNode] {
        let above = top.ancestors
        return base.ancestors.filter { node in !node.isFilter && !above.contains { $0 === node } }
    }
}

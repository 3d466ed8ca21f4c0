import ColdframeKit
import LinuxSystem
import QAPI

/// Registers the commands that change how nodes stand on one another. They run in the lane of the snapshots, which would
/// otherwise be cut or rewound meanwhile.
@AgentActor
func registerChainCommands(_ registry: any CommandRegistry, agent: Agent) {
    let graph = agent.graph
    registry.register(BlockdevSnapshotCommand.self, touches: { [$0.node, $0.overlay] }) { arguments in
        try await takeSnapshot(.node(arguments), agent)
        return QAPIEmpty()
    }
    registry.register(
        BlockdevSnapshotSyncCommand.self, touches: { Set([$0.nodeName, $0.snapshotNodeName].compactMap(\.self)) }
    ) { arguments in
        try await takeSnapshot(.file(arguments), agent)
        return QAPIEmpty()
    }
    registry.register(ChangeBackingFileCommand.self, touches: { [$0.device, $0.imageNodeName] }) { arguments in
        try await agent.lane.run { try await changeBackingFile(arguments, agent) }
        return QAPIEmpty()
    }
    registry.register(BlockdevReopenCommand.self, touches: { Set($0.options.compactMap(\.nodeName)) }) { arguments in
        try await agent.lane.run { try await reopen(arguments, agent) }
        agent.catalogue.changed()
        return QAPIEmpty()
    }
    registry.register(
        XBlockdevChangeCommand.self, touches: { Set([$0.parent, $0.node].compactMap(\.self)) }
    ) { arguments in
        try await agent.lane.run { try await changeChildren(arguments, graph: graph) }
        agent.catalogue.changed()
        return QAPIEmpty()
    }
}

@AgentActor
private func takeSnapshot(_ request: ExternalSnapshotStep.Request, _ agent: Agent) async throws {
    try await agent.lane.run {
        let step = ExternalSnapshotStep(request, context: agent.snapshotContext)
        try await Transaction([step], graph: agent.graph).run(TransactionJournal(agent.snapshotContext))
    }
    agent.catalogue.changed()
}

@AgentActor
private func changeBackingFile(_ arguments: ChangeBackingFileArguments, _ agent: Agent) async throws {
    let graph = agent.graph
    let top = try graph.findRoot(arguments.device)
    let image = try graph.find(nodeOnly: arguments.imageNodeName)
    guard let backing = image.withoutFilters.backing else {
        throw ColdframeError(
            .invalidArgument, "not allowing backing file change on an image without a backing file")
    }
    try top.checkUnblocked(for: .change)
    guard top.chain.contains(where: { $0 === image }) else {
        throw ColdframeError(
            .invalidArgument, "'\(arguments.device)' and image file are not in the same chain")
    }
    // The images above show what the named file holds, the next time that they are opened.
    let above = top.chain.prefix { $0 !== image } + [image]
    try ShownSnapshots(leases: agent.leases).refuseChange(
        below: Array(above), by: "Another backing file", force: arguments.force)
    let format = backing.withoutFilters.block.driver.driverName
    try await image.drained {
        try await graph.nameBackingFile(of: image, name: arguments.backingFile, format: format)
    }
}

@AgentActor
private func changeChildren(_ arguments: XBlockdevChangeArguments, graph: Graph) async throws {
    let parent = try graph.find(deviceOrNode: arguments.parent)
    switch (arguments.child, arguments.node) {
    case (nil, nil): throw ColdframeError(.invalidArgument, "Either child or node must be specified")
    case (_?, _?): throw ColdframeError(.invalidArgument, "The parameters child and node are in conflict")
    case (let name?, nil):
        guard let edge = parent.children.first(where: { $0.role == name }) else {
            throw ColdframeError(.notFound, "Node '\(parent.name)' does not have child '\(name)'")
        }
        try await graph.removeChild(edge, from: parent)
    case (nil, let name?):
        guard let node = graph.find(nodeName: name) else {
            throw ColdframeError(.notFound, "Node '\(name)' not found")
        }
        try await graph.addChild(node, to: parent)
    }
}

extension Graph {
    /// Writes a backing file's name into a node's image, made writable for it. The node is drained.
    func nameBackingFile(of node: GraphNode, name: String?, format: String?) async throws {
        let isReadOnly = node.block.isReadOnly
        do {
            if isReadOnly { try await setReadOnly(node, false) }
            guard let driver = node.block.driver as? any Backed else {
                throw ColdframeError(
                    .unsupported, SystemError.text(errno: Errno.notSupported), errno: Errno.notSupported)
            }
            try await blocking { () throws(ColdframeError) in try driver.setBackingFile(name: name, format: format) }
        } catch {
            if isReadOnly { try? await setReadOnly(node, true) }
            let error = ColdframeError(wrapping: error)
            throw ColdframeError(
                error.code, "Could not change backing file to '\(name ?? "")': \(error.message)", errno: error.errno)
        }
        if isReadOnly { try await setReadOnly(node, true) }
    }
}

extension GraphNode {
    /// All nodes above it, through any edge.
    var ancestors: [GraphNode] {
        var found: [GraphNode] = []
        func visit(_ node: GraphNode) {
            for parent in node.parents where !found.contains(where: { $0 === parent }) {
                found.append(parent)
                visit(parent)
            }
        }
        visit(self)
        return found
    }
}

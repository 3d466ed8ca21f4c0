import ColdframeKit
import QAPI
import QMPWire

/// Registers what can be asked of a node in use: its size, its thresholds, its counters.
@AgentActor
func registerNodeCommands(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(BlockResizeCommand.self, touches: { [$0.nodeName ?? $0.device ?? ""] }) { arguments in
        // Not while snapshots are made or deleted.
        try await agent.lane.run { try await resize(arguments, graph: agent.graph) }
        agent.catalogue.changed()
        return QAPIEmpty()
    }
    registry.register(BlockSetWriteThresholdCommand.self, touches: { [$0.nodeName] }) { arguments in
        guard let node = agent.graph.find(nodeName: arguments.nodeName) else {
            throw ColdframeError(.notFound, "Device '\(arguments.nodeName)' not found")
        }
        let name = node.name
        node.body.watch.setThreshold(arguments.writeThreshold) { [monitors = agent.monitors] exceededBy, threshold in
            let data: JSONObject = [
                "node-name": .string(name), "amount-exceeded": JSONValue(exceededBy),
                "write-threshold": JSONValue(threshold),
            ]
            // The writer goes on; whoever listens hears of it soon.
            Task { @AgentActor in monitors.post(event: "BLOCK_WRITE_THRESHOLD", data: data) }
        }
        return QAPIEmpty()
    }
    registry.register(QueryBlockstatsCommand.self) { arguments in
        // Devices are the guest's.
        arguments.queryNodes ?? false ? GraphStatistics(graph: agent.graph).nodes() : []
    }
    registry.register(XDebugQueryBlockGraphCommand.self) { _ in
        GraphStatistics(graph: agent.graph).picture(of: agent.jobs.jobs)
    }
    registry.register(XBlockdevSetIothreadCommand.self) { arguments in
        try refuseIOThread(arguments, graph: agent.graph)
        return QAPIEmpty()
    }
}

/// Requests run on the threads that bring them: there are no I/O threads to choose from.
@AgentActor
private func refuseIOThread(_ arguments: XBlockdevSetIothreadArguments, graph: Graph) throws {
    let name = arguments.nodeName
    guard let node = graph.find(nodeName: name) else {
        throw ColdframeError(.notFound, "Failed to find node with node-name='\(name)'")
    }
    if !(arguments.force ?? false), node.uses.contains(where: { $0.parent == nil }) {
        throw ColdframeError(
            .busy,
            "Node \(name) is associated with a BlockBackend and could be in use (use force=true to override this check)"
        )
    }
    if case .s(let thread) = arguments.iothread {
        throw ColdframeError(.notFound, "Cannot find iothread \(thread)")
    }
}

@AgentActor
private func resize(_ arguments: BlockResizeArguments, graph: Graph) async throws {
    guard arguments.device == nil, let name = arguments.nodeName, let node = graph.find(nodeName: name) else {
        throw ColdframeError(
            .notFound, "Cannot find device='\(arguments.device ?? "")' nor node-name='\(arguments.nodeName ?? "")'")
    }
    guard arguments.size >= 0 else { throw ColdframeError(.invalidArgument, "Parameter 'size' expects a >0 size") }
    do { try node.checkUnblocked(for: .resize) } catch {
        // What blocks it is not told, and no name where only the node's was given: QEMU's text.
        throw ColdframeError(.busy, "Device '(null)' is in use")
    }
    let use = NodeUse(.holder("block_resize"), role: "root", permissions: .resize, shared: .all)
    try node.add(use)
    do { try await resize(node, toByteCount: UInt64(arguments.size)) } catch {
        await graph.end(use)
        throw error
    }
    await graph.end(use)
}

@AgentActor
private func resize(_ node: GraphNode, toByteCount size: UInt64) async throws {
    guard !node.block.isReadOnly else { throw ColdframeError(.permission, "Image is read-only") }
    guard let driver = node.block.driver as? any Resizable else {
        throw ColdframeError(.unsupported, "Image format driver does not support resize")
    }
    try await node.drained { try await Graph.resize(node, driver, toByteCount: size) }
}

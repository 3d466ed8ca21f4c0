import ColdframeKit
import QAPI

/// Registers `block-stream` and `block-commit`.
@AgentActor
func registerChainJobCommands(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(BlockStreamCommand.self, touches: { [$0.device] }) { arguments in
        try await agent.lane.run { try await stream(arguments, agent) }
        return QAPIEmpty()
    }
    registry.register(BlockCommitCommand.self, touches: { [$0.device] }) { arguments in
        try await agent.lane.run { try await commit(arguments, agent) }
        return QAPIEmpty()
    }
}

@AgentActor
private func stream(_ arguments: BlockStreamArguments, _ agent: Agent) async throws {
    let graph = agent.graph
    var request = try await StreamRequest(arguments, graph: graph)
    let drain = GraphDrain([request.top])
    _ = await drain.begin()
    defer { drain.end() }
    // Again: the world may have changed while it was brought to rest.
    request = try await StreamRequest(arguments, graph: graph)
    try agent.jobs.checkID(arguments.jobId ?? "")
    try ShownSnapshots(leases: agent.leases).refuseChange(
        below: [request.top.withoutFilters], by: "A stream", force: arguments.force)
    let image = request.top
    let wasReadOnly = image.block.isReadOnly
    if wasReadOnly { try await graph.setReadOnly(image, false) }
    do {
        let driver = try StreamJob(request, wasReadOnly: wasReadOnly, graph: graph, lane: agent.lane)
        try await begin(driver, arguments.jobId, arguments.autoFinalize, arguments.autoDismiss, arguments.speed, agent)
    } catch {
        if wasReadOnly { try? await graph.setReadOnly(image, true) }
        throw error
    }
}

@AgentActor
private func commit(_ arguments: BlockCommitArguments, _ agent: Agent) async throws {
    let graph = agent.graph
    var request = try await CommitRequest(arguments, graph: graph)
    let drain = GraphDrain([request.top, request.base])
    _ = await drain.begin()
    defer { drain.end() }
    request = try await CommitRequest(arguments, graph: graph)
    try agent.jobs.checkID(arguments.jobId ?? "")
    try ShownSnapshots(leases: agent.leases).refuseChange(
        below: request.dependents, by: "A commit", force: arguments.force)
    let base = request.base
    let wasReadOnly = base.block.isReadOnly
    if wasReadOnly { try await graph.setReadOnly(base, false) }
    do {
        let driver: any JobDriver
        if request.isActive {
            driver = try MirrorJob(
                MirrorRequest(request, baseWasReadOnly: wasReadOnly),
                granularity: defaultGranularity(of: base), graph: graph, lane: agent.lane)
        } else {
            driver = try CommitJob(request, baseWasReadOnly: wasReadOnly, graph: graph, lane: agent.lane)
        }
        try await begin(driver, arguments.jobId, arguments.autoFinalize, arguments.autoDismiss, arguments.speed, agent)
    } catch {
        if wasReadOnly { try? await graph.setReadOnly(base, true) }
        throw error
    }
}

/// Makes the job of a driver that has its place in the graph already.
@AgentActor
private func begin(
    _ driver: any JobDriver, _ id: String?, _ autoFinalize: Bool?, _ autoDismiss: Bool?, _ speed: Int64?, _ agent: Agent
) async throws {
    do {
        let job = try agent.jobs.create(
            id: id, driver: driver, group: JobGroup(), autoFinalize: autoFinalize ?? true,
            autoDismiss: autoDismiss ?? true, speed: speed ?? 0)
        agent.jobs.begin(job)
    } catch {
        await driver.abort()
        throw error
    }
}

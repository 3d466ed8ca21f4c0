import ColdframeKit
import QAPI

/// Registers `drive-mirror`.
@AgentActor
func registerDriveMirrorCommand(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(DriveMirrorCommand.self, touches: { [$0.device, $0.nodeName ?? ""] }) { arguments in
        try await driveMirror(arguments, agent)
        return QAPIEmpty()
    }
}

@AgentActor
private func driveMirror(_ arguments: DriveMirror, _ agent: Agent) async throws {
    let graph = agent.graph
    let source = try graph.findRoot(arguments.device)
    try source.checkUnblocked(for: .mirrorSource)
    var sync = arguments.sync
    let below = source.withoutFilters.backing
    if sync == .top, below == nil { sync = .full }
    if arguments.replaces != nil, arguments.nodeName == nil {
        throw ColdframeError(
            .invalidArgument, "a node-name must be provided when replacing a named node of the graph")
    }
    let request = DriveTarget.Request(
        filename: arguments.target, format: arguments.format, mode: arguments.mode, nodeName: arguments.nodeName,
        // As the source does: `unmap` is about what the mirror makes zero.
        discards: source.currentOptions?.discard == .unmap)
    // What is below is there from the beginning: parts of clusters that are written show the rest of it.
    let backing: DriveTarget.Backing =
        switch sync {
        case .none: .later(source)
        case .top: request.isMade ? below.map { .node($0) } ?? .none : .asNamed
        default: request.isMade ? .none : .asNamed
        }
    let target = try await DriveTarget(request, for: source, backing: backing, graph: graph)
    let start = MirrorStart(
        jobID: arguments.jobId, autoFinalize: arguments.autoFinalize, autoDismiss: arguments.autoDismiss,
        speed: arguments.speed)
    let options = MirrorRequest.Options(
        replaces: arguments.replaces, sync: sync, granularity: arguments.granularity,
        bufferByteCount: arguments.bufSize, onSourceError: arguments.onSourceError,
        onTargetError: arguments.onTargetError, copyMode: arguments.copyMode, unmaps: arguments.unmap ?? true,
        backsTarget: sync == .none, targetIsNew: request.isMade)
    do {
        try await start.run(agent) {
            try MirrorRequest(options, source: source, target: target.node, graph: graph)
        }
    } catch {
        await target.giveUp()
        throw error
    }
}

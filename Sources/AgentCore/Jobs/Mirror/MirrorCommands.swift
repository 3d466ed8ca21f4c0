import ColdframeKit
import LinuxSystem
import QAPI

/// Registers `blockdev-mirror`.
@AgentActor
func registerMirrorCommands(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(BlockdevMirrorCommand.self, touches: { [$0.device, $0.target] }) { arguments in
        let graph = agent.graph
        let start = MirrorStart(
            jobID: arguments.jobId, autoFinalize: arguments.autoFinalize, autoDismiss: arguments.autoDismiss,
            speed: arguments.speed)
        try await start.run(agent) {
            try MirrorRequest(
                arguments.options, source: graph.findRoot(arguments.device),
                target: graph.find(deviceOrNode: arguments.target), graph: graph)
        }
        return QAPIEmpty()
    }
}

extension BlockdevMirrorArguments {
    fileprivate var options: MirrorRequest.Options {
        MirrorRequest.Options(
            replaces: replaces, sync: sync, granularity: granularity, bufferByteCount: bufSize,
            onSourceError: onSourceError, onTargetError: onTargetError, filterNodeName: filterNodeName,
            copyMode: copyMode)
    }
}

/// Makes the job of a mirror and begins it.
@AgentActor
struct MirrorStart {
    let jobID: String?
    let autoFinalize: Bool?
    let autoDismiss: Bool?
    let speed: Int64?

    /// `check` is called twice: the world may have changed while it was brought to rest.
    func run(_ agent: Agent, _ check: () throws -> MirrorRequest) async throws {
        var request = try check()
        let granularity = defaultGranularity(of: request.target)
        let drain = GraphDrain([request.source, request.target])
        _ = await drain.begin()
        defer { drain.end() }
        request = try check()
        let mirror = try MirrorJob(
            request, granularity: request.granularity ?? granularity, graph: agent.graph, lane: agent.lane)
        do {
            let job = try agent.jobs.create(
                id: jobID, driver: mirror, group: JobGroup(), autoFinalize: autoFinalize ?? true,
                autoDismiss: autoDismiss ?? true, speed: speed ?? 0)
            agent.jobs.begin(job)
        } catch {
            await mirror.abort()
            throw error
        }
    }
}

/// The granularity of a bitmap where none is given: the image's cluster size, within bounds.
@AgentActor
func defaultGranularity(of node: GraphNode) -> UInt32 {
    guard let cluster = node.block.driver.clusterByteCount, cluster.nonzeroBitCount == 1 else { return 65536 }
    return min(max(cluster, 4096), 65536)
}

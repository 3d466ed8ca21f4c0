import ColdframeKit
import LinuxSystem
import QAPI

/// Registers `blockdev-mirror`.
@AgentActor
func registerMirrorCommands(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(BlockdevMirrorCommand.self, touches: { [$0.device, $0.target] }) { arguments in
        let (graph, jobs) = (agent.graph, agent.jobs)
        var request = try MirrorRequest(arguments, graph: graph)
        let granularity = await defaultGranularity(of: request.target)
        let drain = GraphDrain([request.source, request.target])
        _ = await drain.begin()
        defer { drain.end() }
        // Again: the world may have changed while it was brought to rest.
        request = try MirrorRequest(arguments, graph: graph)
        let mirror = try MirrorJob(request, granularity: request.granularity ?? granularity, graph: graph)
        do {
            let job = try jobs.create(
                id: arguments.jobId, driver: mirror, group: JobGroup(), autoFinalize: arguments.autoFinalize ?? true,
                autoDismiss: arguments.autoDismiss ?? true, speed: arguments.speed ?? 0)
            jobs.begin(job)
        } catch {
            await mirror.undo()
            throw error
        }
        return QAPIEmpty()
    }
}

/// The granularity of a bitmap where none is given: the image's cluster size, within bounds.
@AgentActor
func defaultGranularity(of node: GraphNode) async -> UInt32 {
    let driver = node.block.driver
    let cluster = await BlockingPool.shared.run { (try? driver.information())?.clusterByteCount }
    guard let cluster, cluster.nonzeroBitCount == 1 else { return 65536 }
    return min(max(cluster, 4096), 65536)
}

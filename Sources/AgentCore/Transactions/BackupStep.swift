import ColdframeKit
import LinuxSystem
import QAPI

/// The action `blockdev-backup`: makes the job when it is cut, which is the moment that the backup shows, and starts it
/// when the transaction is committed.
@AgentActor
final class BackupStep: TransactionStep {
    private let action: BlockdevBackup
    private let graph: Graph
    private let jobs: JobRegistry
    private let group: JobGroup
    private var job: Job?

    init(_ action: BlockdevBackup, graph: Graph, jobs: JobRegistry, group: JobGroup) {
        self.action = action
        self.graph = graph
        self.jobs = jobs
        self.group = group
    }

    var drainedNodes: [GraphNode] {
        [action.device, action.target].compactMap { graph.find(nodeName: $0) }
    }

    func cut() async throws {
        let source = try graph.find(deviceOrNode: action.device)
        let target = try graph.find(deviceOrNode: action.target)
        let driver = target.block.driver
        let cluster = await BlockingPool.shared.run { (try? driver.information())?.clusterByteCount }
        let request = try BackupRequest(action.common, source: source, target: target)
        let backup = try BackupJob(request, clusterByteCount: cluster, graph: graph)
        do {
            job = try jobs.create(
                id: request.common.jobID, driver: backup, group: group, autoFinalize: request.common.autoFinalize,
                autoDismiss: request.common.autoDismiss, speed: request.common.speed)
        } catch {
            await backup.abort()
            await backup.clean()
            throw error
        }
    }

    func commit() async {
        if let job { jobs.begin(job, isDrained: true) }
    }

    func abort() async throws {
        if let job { await jobs.abort(job.group) }
    }
}

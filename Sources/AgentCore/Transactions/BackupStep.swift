import ColdframeKit
import LinuxSystem
import QAPI

/// The actions `blockdev-backup` and `drive-backup`: makes the job when it is cut, which is the moment that the backup shows,
/// and starts it when the transaction is committed.
@AgentActor
final class BackupStep: TransactionStep {
    enum Action {
        case node(BlockdevBackup)
        case file(DriveBackup)
    }
    private let action: Action
    private let graph: Graph
    private let jobs: JobRegistry
    private var group: JobGroup
    private var job: Job?
    private var drive: DriveTarget?

    init(_ action: Action, graph: Graph, jobs: JobRegistry, group: JobGroup) {
        self.action = action
        self.graph = graph
        self.jobs = jobs
        self.group = group
    }

    var drainedNodes: [GraphNode] {
        switch action {
        case .node(let backup): [backup.device, backup.target].compactMap { graph.find(nodeName: $0) }
        case .file(let backup): [backup.device].compactMap { graph.find(nodeName: $0) }
        }
    }

    func cut() async throws {
        switch action {
        case .node(let backup):
            let source = try graph.find(deviceOrNode: backup.device)
            try await make(backup.common, source: source, target: try graph.find(deviceOrNode: backup.target))
        case .file(let backup):
            let source = try graph.find(deviceOrNode: backup.device)
            try source.checkUnblocked(for: .backupSource)
            var common = backup.common
            let below = source.withoutFilters.backing
            if common.sync == .top, below == nil { common.sync = .full }
            let request = DriveTarget.Request(
                filename: backup.target, format: backup.format, mode: backup.mode, discards: true)
            let backing: DriveTarget.Backing =
                switch common.sync {
                case .none: .later(source)
                case .top: request.isMade ? below.map { .node($0) } ?? .none : .asNamed
                default: request.isMade ? .none : .asNamed
                }
            let drive = try await DriveTarget(request, for: source, backing: backing, graph: graph)
            self.drive = drive
            try await make(common, source: source, target: drive.node, backsTarget: common.sync == .none)
        }
    }

    private func make(
        _ common: BackupCommonValues, source: GraphNode, target: GraphNode, backsTarget: Bool = false
    ) async throws {
        let request = try BackupRequest(common, source: source, target: target, backsTarget: backsTarget)
        let backup = try BackupJob(request, graph: graph)
        do {
            job = try jobs.create(
                id: common.jobID, driver: backup, group: group, autoFinalize: common.autoFinalize,
                autoDismiss: common.autoDismiss, speed: common.speed)
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
        await drive?.giveUp()
        // A step of a snapshot's moment may be cut again.
        (job, drive, group) = (nil, nil, JobGroup())
    }
}

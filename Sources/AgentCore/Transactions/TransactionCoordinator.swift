import ColdframeKit
import LinuxSystem
import QAPI

/// Turns the actions of `transaction` into steps and runs them.
@AgentActor
struct TransactionCoordinator {
    let context: SnapshotContext
    let jobs: JobRegistry
    let lane: SnapshotLane

    /// A snapshot of the transaction gives its moment to all others, and its job does the rest. A transaction without one is
    /// over when this returns.
    func run(_ arguments: TransactionArguments) async throws {
        let mode = arguments.properties?.completionMode ?? .individual
        let group = JobGroup()
        var steps: [any TransactionStep] = []
        let saves = arguments.actions.compactMap { $0.branch as? SnapshotSaveArguments }
        guard saves.count <= 1 else {
            throw ColdframeError(.invalidArgument, "A transaction has one moment: 'snapshot-save' can be in it once")
        }
        if !saves.isEmpty, mode == .grouped { throw Self.refusedGrouped("snapshot-save") }
        for action in arguments.actions where !(action.branch is SnapshotSaveArguments) {
            if !saves.isEmpty, !action.canShareMoment {
                throw ColdframeError(
                    .unsupported, "Action '\(action.type)' cannot be in one transaction with 'snapshot-save'")
            }
            steps.append(try step(for: action, mode: mode, group: mode == .grouped ? group : JobGroup()))
        }
        if let save = saves.first {
            let driver = SaveJob(save, context: context, lane: lane, with: steps)
            return try jobs.start(id: save.jobId, driver: driver)
        }
        try await Transaction(steps, graph: context.graph).run(TransactionJournal(context))
    }

    private func step(
        for action: TransactionAction, mode: ActionCompletionMode, group: JobGroup
    ) throws -> any TransactionStep {
        if action.branch is Abort { return AbortStep() }
        if let backup = action.branch as? BlockdevBackup {
            return BackupStep(.node(backup), graph: context.graph, jobs: jobs, group: group)
        }
        if let backup = action.branch as? DriveBackup {
            return BackupStep(.file(backup), graph: context.graph, jobs: jobs, group: group)
        }
        guard mode == .individual else {
            throw Self.refusedGrouped(action.type)
        }
        if let delete = action.branch as? SnapshotDeleteArguments {
            return DeleteStep(delete, context: context, jobs: jobs, lane: lane)
        }
        if let step = BitmapSteps.step(for: action, graph: context.graph) { return step }
        switch action.branch {
        case let snapshot as BlockdevSnapshot: return ExternalSnapshotStep(.node(snapshot), context: context)
        case let snapshot as BlockdevSnapshotSync: return ExternalSnapshotStep(.file(snapshot), context: context)
        case let snapshot as BlockdevSnapshotInternal:
            return InternalSnapshotStep(
                node: try context.graph.find(deviceOrNode: snapshot.device),
                request: SnapshotRequest(name: snapshot.name, at: SystemClock.realtime()), faultPoint: .transactionCut)
        default:
            throw ColdframeError(.unsupported, "Action '\(action.type)' is not supported in a transaction")
        }
    }
}

extension TransactionCoordinator {
    fileprivate static func refusedGrouped(_ type: String) -> ColdframeError {
        ColdframeError(
            .invalidArgument, "Action '\(type)' does not support Transaction property completion-mode = grouped")
    }
}

extension TransactionAction {
    /// Bitmaps and jobs: what a crash leaves of them is nothing, or what a bitmap's image says itself.
    fileprivate var canShareMoment: Bool {
        !(branch is BlockdevSnapshot || branch is BlockdevSnapshotSync || branch is BlockdevSnapshotInternal)
    }
}

/// The action `snapshot-delete`: its job starts when the transaction is committed.
@AgentActor
private final class DeleteStep: TransactionStep {
    private let arguments: SnapshotDeleteArguments
    private let context: SnapshotContext
    private let jobs: JobRegistry
    private let lane: SnapshotLane
    private var job: Job?

    init(_ arguments: SnapshotDeleteArguments, context: SnapshotContext, jobs: JobRegistry, lane: SnapshotLane) {
        self.arguments = arguments
        self.context = context
        self.jobs = jobs
        self.lane = lane
    }

    var drainedNodes: [GraphNode] { [] }

    func cut() async throws {
        job = try jobs.create(
            id: arguments.jobId, driver: DeleteJob(arguments, context: context, lane: lane), group: JobGroup(),
            autoFinalize: true, autoDismiss: false)
    }

    func commit() async {
        if let job { jobs.begin(job) }
    }

    func abort() async throws {
        if let job { await jobs.abort(job.group) }
        job = nil
    }
}

/// The action `abort`: makes its transaction fail.
@AgentActor
private final class AbortStep: TransactionStep {
    var drainedNodes: [GraphNode] { [] }
    func cut() async throws {
        throw ColdframeError(.cancelled, "Transaction aborted using Abort action")
    }
}

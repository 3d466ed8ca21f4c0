import ColdframeKit
import LinuxSystem
import QAPI

/// Turns the actions of `transaction` into steps and runs them.
@AgentActor
struct TransactionCoordinator {
    let context: SnapshotContext
    let jobs: JobRegistry

    func run(_ arguments: TransactionArguments) async throws {
        let mode = arguments.properties?.completionMode ?? .individual
        let group = JobGroup()
        var steps: [any TransactionStep] = []
        for action in arguments.actions {
            steps.append(try step(for: action, mode: mode, group: mode == .grouped ? group : JobGroup()))
        }
        try await Transaction(steps, graph: context.graph).run(TransactionJournal(context))
    }

    private func step(
        for action: TransactionAction, mode: ActionCompletionMode, group: JobGroup
    ) throws -> any TransactionStep {
        if action.branch is Abort { return AbortStep() }
        if let backup = action.branch as? BlockdevBackup {
            return BackupStep(backup, graph: context.graph, jobs: jobs, group: group)
        }
        guard mode == .individual else {
            throw ColdframeError(
                .invalidArgument,
                "Action '\(action.type)' does not support Transaction property completion-mode = grouped")
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

/// The action `abort`: makes its transaction fail.
@AgentActor
private final class AbortStep: TransactionStep {
    var drainedNodes: [GraphNode] { [] }
    func cut() async throws {
        throw ColdframeError(.cancelled, "Transaction aborted using Abort action")
    }
}

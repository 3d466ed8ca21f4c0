import ColdframeKit
import QAPI

/// Registers `blockdev-backup` and `drive-backup`: transactions of one action.
@AgentActor
func registerBackupCommands(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(BlockdevBackupCommand.self, touches: { [$0.device, $0.target] }) { arguments in
        try await run(.node(arguments), agent)
        return QAPIEmpty()
    }
    registry.register(DriveBackupCommand.self, touches: { [$0.device] }) { arguments in
        try await run(.file(arguments), agent)
        return QAPIEmpty()
    }
}

@AgentActor
private func run(_ action: BackupStep.Action, _ agent: Agent) async throws {
    let step = BackupStep(action, graph: agent.graph, jobs: agent.jobs, group: JobGroup())
    try await Transaction([step], graph: agent.graph).run(TransactionJournal(agent.snapshotContext))
}

import ColdframeKit
import QAPI

/// Registers `blockdev-backup`: a transaction of one action.
@AgentActor
func registerBackupCommands(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(BlockdevBackupCommand.self, touches: { [$0.device, $0.target] }) { arguments in
        let step = BackupStep(arguments, graph: agent.graph, jobs: agent.jobs, group: JobGroup())
        try await Transaction([step], graph: agent.graph).run(TransactionJournal(agent.snapshotContext))
        return QAPIEmpty()
    }
}

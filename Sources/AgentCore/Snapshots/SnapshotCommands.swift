import ColdframeKit
import QAPI

/// Registers the commands on snapshots and their exports.
@AgentActor
func registerSnapshotCommands(_ registry: any CommandRegistry, agent: Agent) {
    let context = agent.snapshotContext
    let lane = agent.lane
    registry.register(SnapshotSaveCommand.self) { arguments in
        try agent.jobs.start(
            id: arguments.jobId, driver: SaveJob(arguments, context: context, lane: lane))
        return QAPIEmpty()
    }
    registry.register(SnapshotLoadCommand.self) { arguments in
        try agent.jobs.start(
            id: arguments.jobId,
            driver: LoadJob(arguments, context: context, lane: lane, stateDirectory: agent.directories?.state))
        return QAPIEmpty()
    }
    registry.register(SnapshotDeleteCommand.self) { arguments in
        try agent.jobs.start(
            id: arguments.jobId, driver: DeleteJob(arguments, context: context, lane: lane))
        return QAPIEmpty()
    }
    registry.register(QuerySnapshotsCommand.self) { _ in
        agent.catalogue.sets.map(\.wire)
    }
    registry.register(SnapshotCheckCommand.self) { arguments in
        let problems = try await SnapshotCheck(context: context).problems(tag: arguments.tag)
        return SnapshotCheckResult(ok: problems.isEmpty, problems: problems)
    }
    registry.register(QueryIntentsCommand.self) { _ in
        await agent.recovery?.information() ?? []
    }
    registry.register(SnapshotExportAddCommand.self, touches: { [$0.id] }) { options in
        try await agent.snapshotExports.add(options, services: agent.services)
        return QAPIEmpty()
    }
    registry.register(SnapshotExportDelCommand.self, touches: { [$0.id] }) { arguments in
        try await agent.snapshotExports.remove(id: arguments.id)
        return QAPIEmpty()
    }
    registry.register(QuerySnapshotExportsCommand.self) { _ in
        agent.snapshotExports.information(snapshotCount: agent.catalogue.sets.count)
    }
}

extension SnapshotSet {
    /// As QAPI's `SnapshotSetInfo`.
    @AgentActor
    fileprivate var wire: SnapshotSetInfo {
        let main = vmStateMember ?? members[0]
        let record = SetRecord(main.snapshot.annotation)
        return SnapshotSetInfo(
            tag: tag, uuid: uuid, mixed: isMixed, complete: isComplete,
            vmStateSize: Int64(clamping: vmStateMember?.snapshot.vmStateByteCount ?? 0),
            dateSec: Int64(main.snapshot.dateSeconds), dateNsec: Int64(main.snapshot.dateNanoseconds),
            vmClockSec: Int64(clamping: main.snapshot.guestClockNanoseconds / 1_000_000_000),
            vmClockNsec: Int64(main.snapshot.guestClockNanoseconds % 1_000_000_000),
            way: record.map { "\($0.way)" },
            nodes: members.map {
                SnapshotSetNode(
                    nodeName: $0.nodeName, id: $0.snapshot.id,
                    vmStateSize: Int64(clamping: $0.snapshot.vmStateByteCount),
                    diskSize: Int64(clamping: $0.snapshot.diskByteCount))
            },
            holders: holders)
    }
}

import ColdframeKit
import LinuxSystem
import QAPI

/// Registers the commands on nodes and their internal snapshots.
@AgentActor
func registerBlockCommands(_ registry: any CommandRegistry, agent: Agent) {
    let graph = agent.graph
    registry.register(BlockdevAddCommand.self, touches: { [$0.nodeName ?? ""] }) { options in
        try await graph.add(options)
        await agent.recover()
        agent.catalogue.changed()
        return QAPIEmpty()
    }
    registry.register(BlockdevDelCommand.self, touches: { [$0.nodeName] }) { arguments in
        let holders = agent.leases.holders(node: arguments.nodeName)
        guard holders.isEmpty else {
            throw ColdframeError(
                .busy,
                "Node '\(arguments.nodeName)' is busy: a snapshot of it is open in \(holders.joined(separator: ", "))")
        }
        try await graph.remove(nodeName: arguments.nodeName)
        agent.catalogue.changed()
        return QAPIEmpty()
    }
    registry.register(BlockdevCreateCommand.self) { arguments in
        try agent.jobs.start(id: arguments.jobId, driver: CreateJob(arguments.options, graph: graph))
        return QAPIEmpty()
    }
    registry.register(QueryNamedBlockNodesCommand.self) { arguments in
        try await NodeInformation(graph: graph).nodes(isFlat: arguments.flat ?? false)
    }
    registry.register(QueryBlockCommand.self) { _ in
        // Devices are the guest's; the agent itself has nodes only.
        []
    }
    registry.register(BlockdevSnapshotInternalSyncCommand.self, touches: { [$0.device] }) { arguments in
        // Looked up when its turn has come: what was there before may be gone.
        try await agent.lane.run {
            let step = InternalSnapshotStep(
                node: try graph.find(deviceOrNode: arguments.device),
                request: SnapshotRequest(name: arguments.name, at: SystemClock.realtime()), faultPoint: .transactionCut)
            try await Transaction([step], graph: graph).run(TransactionJournal(agent.snapshotContext))
        }
        agent.catalogue.changed()
        return QAPIEmpty()
    }
    registry.register(BlockdevSnapshotDeleteInternalSyncCommand.self, touches: { [$0.device] }) { arguments in
        let deleted = try await agent.lane.run {
            try await InternalSnapshotDeletion(graph: graph, leases: agent.leases).run(
                device: arguments.device, id: arguments.id, name: arguments.name)
        }
        agent.catalogue.changed()
        return deleted.wire
    }
    registry.register(TransactionCommand.self, touches: { Set($0.actions.flatMap(\.touchedNames)) }) { arguments in
        let coordinator = TransactionCoordinator(context: agent.snapshotContext, jobs: agent.jobs, lane: agent.lane)
        if arguments.actions.contains(where: \.needsLane) {
            try await agent.lane.run { try await coordinator.run(arguments) }
        } else {
            try await coordinator.run(arguments)
        }
        agent.catalogue.changed()
        return QAPIEmpty()
    }
}

extension TransactionAction {
    /// It works on snapshots, or on what they show.
    fileprivate var needsLane: Bool {
        branch is BlockdevSnapshotInternal || branch is BlockdevSnapshot || branch is BlockdevSnapshotSync
    }

    fileprivate var touchedNames: [String] {
        switch branch {
        case let snapshot as BlockdevSnapshotInternal: [snapshot.device]
        case let snapshot as BlockdevSnapshot: [snapshot.node, snapshot.overlay]
        case let snapshot as BlockdevSnapshotSync: [snapshot.nodeName, snapshot.snapshotNodeName].compactMap(\.self)
        case let bitmap as BlockDirtyBitmap: [bitmap.node]
        case let bitmap as BlockDirtyBitmapAdd: [bitmap.node]
        case let backup as BlockdevBackup: [backup.device, backup.target]
        case let backup as DriveBackup: [backup.device]
        case let merge as BlockDirtyBitmapMerge: Array(merge.touchedNames)
        default: []
        }
    }
}

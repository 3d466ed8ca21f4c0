import ColdframeKit
import LinuxSystem
import QAPI

/// `snapshot-delete`: the tag goes from all devices that have it, or from none.
@AgentActor
final class DeleteJob: JobDriver {
    let jobType = "snapshot-delete"
    let outlivesLateCancel = true
    private let arguments: SnapshotDeleteArguments
    private let context: SnapshotContext
    private let lane: SnapshotLane

    init(_ arguments: SnapshotDeleteArguments, context: SnapshotContext, lane: SnapshotLane) {
        self.arguments = arguments
        self.context = context
        self.lane = lane
    }

    func run(_ control: any JobControl) async throws {
        try await lane.run(for: control) {
            try FaultPoint.deleteBegin.pass()
            let devices = try SnapshotDevices(names: arguments.devices, graph: context.graph)
            try context.refusePending(devices.nodes)
            let found: [(node: GraphNode, snapshot: SnapshotInfo)] = devices.snapshots(tagged: arguments.tag)
                .compactMap { entry in entry.snapshot.map { (entry.node, $0) } }
            guard !found.isEmpty else {
                throw ColdframeError(.notFound, "Snapshot '\(arguments.tag)' does not exist in one or more devices")
            }
            let keys = found.map { SnapshotKey(node: $0.node.name, id: $0.snapshot.id) }
            try context.leases.beginDelete(keys, tag: arguments.tag)
            defer { context.leases.endDelete(keys) }
            try await context.holding(devices, for: jobType) {
                try await control.checkpoint()
                try await delete(found, keys, devices, control)
            }
        }
    }

    func commit() async { context.catalogue.changed() }
    func abort() async { context.catalogue.changed() }

    /// From the first image on the delete only goes forward: what fails stays hidden and pending, and is brought to its
    /// end at the agent's next start.
    private func delete(
        _ found: [(node: GraphNode, snapshot: SnapshotInfo)], _ keys: [SnapshotKey], _ devices: SnapshotDevices,
        _ control: any JobControl
    ) async throws {
        var intent = Intent(
            uuid: UUIDText.generate(), operation: .delete, tag: arguments.tag, images: devices.intentImages)
        for (node, snapshot) in found {
            guard let index = intent.images.firstIndex(where: { $0.nodeName == node.name }) else { continue }
            intent.images[index].snapshot = Intent.Snapshot(snapshot)
        }
        try await context.record(.begin, intent)
        context.catalogue.hide(intent)
        // Whoever watches lets go of the tag before its clusters can be used again.
        context.catalogue.changed()
        var failures: [String] = []
        var deleted = 0
        let progress = DeleteProgress(found.map(\.snapshot.diskByteCount), control)
        do { try FaultPoint.deleteIntent.pass() } catch { failures.append(error.message) }
        for (node, snapshot) in found where failures.isEmpty || deleted > 0 {
            do {
                try FaultPoint.deleteNode.pass(node.name)
                try await Self.delete(snapshot, on: node, progress.ofDisk(deleted))
                deleted += 1
            } catch {
                if deleted == 0, ColdframeError(wrapping: error).code == .cancelled {
                    context.catalogue.show(intent)
                    await context.clear(intent)
                    throw error
                }
                failures.append("'\(node.name)': \(ColdframeError(wrapping: error).message)")
            }
        }
        let isPending = !failures.isEmpty && deleted > 0 && context.journal != nil
        if failures.isEmpty, let sets = context.sets, let record = SetRecord(found[0].snapshot.annotation) {
            await BlockingPool.shared.run { sets.remove(uuid: record.uuidText) }
        }
        // A tag of which a part is left is hidden until it is gone, if there is a journal to remember it.
        if !isPending {
            try? FaultPoint.deleteDone.pass()
            context.catalogue.show(intent)
            await context.clear(intent)
        }
        guard failures.isEmpty else {
            let outcome =
                deleted == 0
                ? "Nothing was changed" : isPending ? "The rest is done at the agent's next start" : "Delete it again"
            throw ColdframeError(
                .io,
                "Snapshot '\(arguments.tag)' could not be deleted from \(failures.joined(separator: "; ")). \(outcome)")
        }
    }

    private static func delete(
        _ snapshot: SnapshotInfo, on node: GraphNode, _ progress: DeleteProgress.OfDisk
    ) async throws {
        let bearer = try node.snapshotBearer()
        let drain = GraphDrain([node])
        _ = await drain.begin()
        defer { drain.end() }
        try await blocking { () throws(ColdframeError) in
            try bearer.deleteSnapshot(id: snapshot.id) { done, total throws(ColdframeError) in
                try progress.set(done, of: total)
            }
        }
        progress.finish()
    }
}

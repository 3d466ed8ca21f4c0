import ColdframeKit

/// `blockdev-snapshot-delete-internal-sync`: one snapshot of one node, by id, name or both.
@AgentActor
struct InternalSnapshotDeletion {
    let graph: Graph
    let leases: LeaseTable

    func run(device: String, id: String?, name: String?) async throws -> SnapshotInfo {
        let node = try graph.find(deviceOrNode: device)
        guard node.isRootForSnapshots else { throw ColdframeError(.busy, "Need a root block node") }
        guard id != nil || name != nil else {
            throw ColdframeError(.invalidArgument, "Name or id must be provided")
        }
        guard let bearer = node.block.driver as? any SnapshotBearing else {
            throw ColdframeError(.unsupported, "Failed to get a snapshot list: Operation not supported")
        }
        let match = bearer.snapshots.first { (id == nil || $0.id == id) && (name == nil || $0.name == name) }
        guard let snapshot = match else {
            throw ColdframeError(
                .notFound,
                "Snapshot with id '\(id ?? "null")' and name '\(name ?? "null")' does not exist on device '\(device)'")
        }
        guard !node.block.isReadOnly else {
            throw ColdframeError(.permission, "Device '\(device)' is read only")
        }
        let key = SnapshotKey(node: node.name, id: snapshot.id)
        try leases.beginDelete([key], tag: snapshot.name)
        defer { leases.endDelete([key]) }
        let drain = GraphDrain([node])
        _ = await drain.begin()
        defer { drain.end() }
        try await blocking { () throws(ColdframeError) in try bearer.deleteSnapshot(id: snapshot.id) }
        return snapshot
    }
}

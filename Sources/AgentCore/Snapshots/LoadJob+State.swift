import ColdframeKit

/// The state of the snapshot that is loaded: where it is, and whether it is what was saved.
extension LoadJob {
    /// The node that holds the state, and its snapshot.
    func stateMember(
        _ devices: SnapshotDevices, _ targets: [SnapshotInfo]
    ) throws -> (node: GraphNode, target: SnapshotInfo) {
        let diskOnly = ColdframeError(
            .invalidArgument, "This is a disk-only snapshot. Revert to it  offline using qemu-img")
        guard targets.contains(where: { $0.vmStateByteCount > 0 }) else { throw diskOnly }
        guard let name = arguments.vmstate else {
            throw ColdframeError(
                .invalidArgument, "Parameter 'vmstate' is missing: it names the node that holds the guest's state")
        }
        let node = try devices.stateNode(named: name)
        guard let index = devices.nodes.firstIndex(where: { $0 === node }), targets[index].vmStateByteCount > 0 else {
            throw diskOnly
        }
        return (node, targets[index])
    }

    /// The caller releases the lease when it has read.
    func openState(
        _ node: GraphNode, _ target: SnapshotInfo, _ control: any JobControl
    ) async throws -> (lease: any SnapshotLease, source: any VMStateReader) {
        let lease = try await context.leases.open(
            node: node, snapshotID: target.id, holder: "job '\(control.jobID)'")
        guard let source = lease.vmState else {
            lease.release()
            throw ColdframeError(.unsupported, "The state of snapshot '\(arguments.tag)' cannot be read")
        }
        return (lease, source)
    }

    /// What was read is what was saved, if the save has said what that was.
    func check(_ state: SetRecord.State, _ node: GraphNode, _ target: SnapshotInfo) throws {
        guard let saved = SetRecord(target.annotation)?.state, saved != state else { return }
        throw ColdframeError(
            .corrupt,
            "The state of snapshot '\(arguments.tag)' on '\(node.name)' is damaged: its checksum is not the one of the "
                + "save. Nothing was changed")
    }
}

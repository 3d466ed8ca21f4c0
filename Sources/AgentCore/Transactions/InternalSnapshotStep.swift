import ColdframeKit
import LinuxSystem

/// Takes an internal snapshot of one node: the action `blockdev-snapshot-internal-sync`, and every disk of a save.
@AgentActor
final class InternalSnapshotStep: TransactionStep {
    let node: GraphNode
    private var request: SnapshotRequest
    /// Passed behind the cut.
    private let faultPoint: FaultPoint
    /// The id that a plan has promised.
    private var plannedID: String?
    /// What the cut made; nil before it and after an abort.
    private(set) var snapshot: SnapshotInfo?

    init(node: GraphNode, request: SnapshotRequest, faultPoint: FaultPoint) {
        self.node = node
        self.request = request
        self.faultPoint = faultPoint
    }

    var drainedNodes: [GraphNode] { [node] }

    var isUndone: Bool { snapshot == nil }

    func check() async throws { _ = try bearer() }

    func plan(_ ids: inout PlannedSnapshotIDs) throws -> Intent.Image? {
        let id = ids.take(on: node, snapshots: try bearer().snapshots)
        request.idFloor = id - 1
        plannedID = String(id)
        var image = Intent.Image(node)
        image.snapshot = Intent.Snapshot(
            id: String(id), name: request.name, dateSeconds: request.dateSeconds,
            dateNanoseconds: request.dateNanoseconds)
        return image
    }

    private func bearer() throws -> any SnapshotBearing {
        guard node.isRootForSnapshots else { throw ColdframeError(.busy, "Need a root block node") }
        let bearer = try node.snapshotBearer()
        guard !request.name.isEmpty else { throw ColdframeError(.invalidArgument, "Name is empty") }
        if bearer.snapshots.contains(where: { $0.name == request.name }) {
            throw ColdframeError(
                .alreadyExists, "Snapshot with name '\(request.name)' already exists on device '\(node.name)'")
        }
        return bearer
    }

    func cut() async throws {
        // Again: an earlier step of the same transaction may have taken the name.
        let bearer = try bearer()
        let request = request
        snapshot = try await BlockingPool.shared.run { () throws(ColdframeError) in
            try bearer.createSnapshot(request)
        }
        if let plannedID, snapshot?.id != plannedID {
            throw ColdframeError(.io, "The snapshot on node '\(node.name)' did not get the id that was planned for it")
        }
        try faultPoint.pass(node.name)
    }

    func abort() async throws {
        guard let snapshot else { return }
        let bearer = try node.snapshotBearer()
        let drain = GraphDrain([node])
        _ = await drain.begin()
        defer { drain.end() }
        try await BlockingPool.shared.run { () throws(ColdframeError) in try bearer.deleteSnapshot(id: snapshot.id) }
        self.snapshot = nil
    }
}

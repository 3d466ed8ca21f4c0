import ColdframeKit

/// Winds one disk back to a snapshot, and keeps what was there in a snapshot of its own until the transaction is
/// committed: the undo.
@AgentActor
final class RewindStep: TransactionStep {
    private let node: GraphNode
    private let target: SnapshotInfo
    private let undoRequest: SnapshotRequest
    private var undo: SnapshotInfo?
    /// Hides the undo from the catalogue while it exists.
    private let catalogue: Catalogue

    init(node: GraphNode, target: SnapshotInfo, undoRequest: SnapshotRequest, catalogue: Catalogue) {
        self.node = node
        self.target = target
        self.undoRequest = undoRequest
        self.catalogue = catalogue
    }

    var drainedNodes: [GraphNode] { [node] }

    func cut() async throws {
        let bearer = try node.snapshotBearer()
        let (request, id) = (undoRequest, target.id)
        let undo = try await blocking { () throws(ColdframeError) in try bearer.createSnapshot(request) }
        self.undo = undo
        catalogue.hide([.init(node: node.name, id: undo.id)])
        try FaultPoint.pass("load.rewind.\(node.name)")
        try await blocking { () throws(ColdframeError) in try bearer.revert(toSnapshot: id) }
    }

    func abort() async throws {
        guard let undo else { return }
        let bearer = try node.snapshotBearer()
        await node.block.gate.beginDrain()
        defer { node.block.gate.endDrain() }
        try await blocking { () throws(ColdframeError) in try bearer.revert(toSnapshot: undo.id) }
        try await removeUndo(bearer)
    }

    func commit() async {
        await node.block.gate.beginDrain()
        defer { node.block.gate.endDrain() }
        // The disk is as asked for; an undo that cannot be removed costs space and is listed under its own name.
        guard let bearer = try? node.snapshotBearer() else { return }
        try? await removeUndo(bearer)
    }

    private func removeUndo(_ bearer: any SnapshotBearing) async throws {
        guard let undo else { return }
        defer { catalogue.show([.init(node: node.name, id: undo.id)]) }
        try await blocking { () throws(ColdframeError) in try bearer.deleteSnapshot(id: undo.id) }
        self.undo = nil
    }
}

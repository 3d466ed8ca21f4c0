import ColdframeKit

/// Winds one disk back to a snapshot, and keeps what was there in a snapshot of its own until the transaction is
/// committed: the undo.
@AgentActor
final class RewindStep: TransactionStep {
    private let node: GraphNode
    private let target: SnapshotInfo
    private let undoRequest: SnapshotRequest
    private var undo: SnapshotInfo?
    private(set) var isUndone = true

    init(node: GraphNode, target: SnapshotInfo, undoRequest: SnapshotRequest) {
        self.node = node
        self.target = target
        self.undoRequest = undoRequest
    }

    var drainedNodes: [GraphNode] { [node] }

    func cut() async throws {
        let bearer = try node.snapshotBearer()
        let (request, id) = (undoRequest, target.id)
        undo = try await blocking { () throws(ColdframeError) in try bearer.createSnapshot(request) }
        isUndone = false
        try FaultPoint.loadRewind.pass(node.name)
        // What differs is not known here: everything may, and a bitmap that claims too much loses nothing.
        for bitmap in node.block.bitmaps.all where bitmap.state.isRecording { bitmap.setAll() }
        try await blocking { () throws(ColdframeError) in try bearer.revert(toSnapshot: id) }
    }

    func abort() async throws {
        guard let undo else { return }
        let bearer = try node.snapshotBearer()
        let drain = GraphDrain([node])
        _ = await drain.begin()
        defer { drain.end() }
        try await blocking { () throws(ColdframeError) in try bearer.revert(toSnapshot: undo.id) }
        try await removeUndo(bearer)
        isUndone = true
    }

    func commit() async {
        let drain = GraphDrain([node])
        _ = await drain.begin()
        defer { drain.end() }
        // The disk is as asked for; an undo that cannot be removed costs space and is listed under its own name.
        guard let bearer = try? node.snapshotBearer() else { return }
        try? await removeUndo(bearer)
    }

    private func removeUndo(_ bearer: any SnapshotBearing) async throws {
        guard let undo else { return }
        try await blocking { () throws(ColdframeError) in try bearer.deleteSnapshot(id: undo.id) }
        self.undo = nil
    }
}

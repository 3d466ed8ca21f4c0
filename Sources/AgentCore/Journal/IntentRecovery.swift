import ColdframeKit
import Logging

/// Brings to an end what an earlier agent had begun: forward where it was committed or had passed the point of no
/// return, back otherwise.
///
/// An intent is touched only when every image that it names is a writable node of this agent, by device and inode. Until
/// then it stays pending, is shown by `query-intents`, and blocks snapshot operations on its nodes only.
@AgentActor
struct IntentRecovery {
    let graph: Graph
    let journal: Journal
    let logger: Logger

    /// Works through all pending intents whose images are here. What fails stays pending.
    func run() async {
        for (step, intent) in journal.interrupted {
            guard let nodes = nodes(of: intent) else { continue }
            do {
                try await recover(intent, step, nodes)
                try await blocking { [journal] () throws(ColdframeError) in try journal.record(.cleared, intent) }
            } catch {
                logger.error(
                    "the \(intent.operation.rawValue) of '\(intent.tag)' is still pending: \(ColdframeError(wrapping: error))"
                )
            }
        }
    }

    /// One node for every image of the intent, or nil while one is missing.
    private func nodes(of intent: Intent) -> [(image: Intent.Image, node: GraphNode)]? {
        var found: [(image: Intent.Image, node: GraphNode)] = []
        for image in intent.images {
            let match = graph.nodes.first { node in
                guard node.isMonitorOwned, !node.block.isReadOnly, node.block.driver is any SnapshotBearing,
                    let identity = node.fileIdentity
                else { return false }
                return identity.device == image.device && identity.inode == image.inode
            }
            guard let match else { return nil }
            found.append((image, match))
        }
        return found
    }

    private func recover(
        _ intent: Intent, _ step: Journal.Step, _ nodes: [(image: Intent.Image, node: GraphNode)]
    ) async throws {
        if intent.operation == .load, step != .committed, let user = nodes.lazy.compactMap(\.node.uses.first).first {
            // It would be wound back under somebody who has perhaps written to it since.
            throw ColdframeError(.busy, "one of its disks is in use by \(user.user): restart the agent")
        }
        // None of them can be deleted meanwhile.
        let holds = nodes.map { ($0.node, NodeUse(.holder("recovery"), role: "root", permissions: [], shared: .all)) }
        defer { for (node, use) in holds { node.remove(use) } }
        for (node, use) in holds { try node.add(use) }
        for (image, node) in nodes {
            switch (intent.operation, step) {
            case (.save, .committed), (.transaction, _):
                break
            case (.save, _):
                try await delete(from: node) { SetRecord($0.annotation)?.uuidText == intent.uuid }
            case (.delete, _):
                try await delete(from: node) {
                    $0.id == image.snapshotID && $0.dateSeconds == image.snapshotDateSeconds && $0.name == intent.tag
                }
            case (.load, .committed):
                try await delete(from: node) { $0.name == intent.undoName }
            case (.load, _):
                try await revert(node, to: intent.undoName)
                try await delete(from: node) { $0.name == intent.undoName }
            }
        }
        let direction = step == .committed || intent.operation == .delete ? "brought to its end" : "undone"
        logger.notice("the \(intent.operation.rawValue) of '\(intent.tag)', which was interrupted, was \(direction)")
    }

    private func delete(from node: GraphNode, where isTarget: (SnapshotInfo) -> Bool) async throws {
        let bearer = try node.snapshotBearer()
        for snapshot in bearer.snapshots where isTarget(snapshot) {
            try await still(node) { () throws(ColdframeError) in try bearer.deleteSnapshot(id: snapshot.id) }
        }
    }

    private func revert(_ node: GraphNode, to name: String) async throws {
        let bearer = try node.snapshotBearer()
        guard let undo = bearer.snapshots.first(where: { $0.name == name }) else { return }
        try await still(node) { () throws(ColdframeError) in try bearer.revert(toSnapshot: undo.id) }
    }

    private func still(
        _ node: GraphNode, _ body: @escaping @Sendable () throws(ColdframeError) -> Void
    ) async throws {
        await node.block.gate.beginDrain()
        defer { node.block.gate.endDrain() }
        try await blocking(body)
    }
}

extension Intent {
    /// The name of the snapshots that a load makes of what is there before it.
    var undoName: String { "coldframe-undo-\(uuid)" }
}

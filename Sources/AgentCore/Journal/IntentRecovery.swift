import ColdframeKit
import LinuxSystem
import Logging
import QAPI

/// Brings to an end what an earlier agent had begun: forward where it was committed or had passed the point of no
/// return, back otherwise.
///
/// An intent is touched only when every image that it names is a writable node of this agent: the same file, in the same
/// format. Until then it stays pending, is shown by `query-intents` with what is in its way, and blocks snapshot
/// operations on its nodes only. Every step can be done again, so a recovery that is killed is begun anew by the next.
///
/// Where the guest has survived, its disks are brought to an end before it finds them again, and the intent stays until
/// its run state is what it was (`GuestSettlement`). A load that had come to feed the guest is left to that altogether:
/// only the guest knows which memory it has.
@AgentActor
final class IntentRecovery {
    let journal: Journal
    let logger: Logger
    private let graph: Graph
    private let catalogue: Catalogue
    private let sets: SetStore?
    /// A guest of the earlier agent runs and has not been taken over yet.
    var awaitsGuest = false
    /// Why the last try failed, by the intent's UUID.
    private var failures: [String: String] = [:]

    init(graph: Graph, journal: Journal, catalogue: Catalogue, sets: SetStore?, logger: Logger) {
        self.graph = graph
        self.journal = journal
        self.catalogue = catalogue
        self.sets = sets
        self.logger = logger
        for (step, intent) in journal.interrupted where step != .committed || intent.operation == .load {
            catalogue.hide(intent)
        }
    }

    /// Works through all pending intents whose images are here. What fails stays pending.
    func run() async {
        for (step, intent) in journal.interrupted {
            guard let nodes = nodes(of: intent) else { continue }
            let isGuests = awaitsGuest && intent.guestWasRunning != nil
            if isGuests, intent.operation == .load, step == .cut { continue }
            do {
                try FaultPoint.recoveryBegin.pass()
                try await recover(intent, step, nodes)
                try FaultPoint.recoveryDone.pass()
                if !isGuests { try await close(intent, step) }
            } catch {
                report(error, intent)
            }
        }
    }

    func nodes(of intent: Intent) -> [IntentImages.Match]? { IntentImages(graph: graph).nodes(of: intent) }

    /// Everything is as it should be.
    func close(_ intent: Intent, _ step: Journal.Step) async throws {
        try await blocking { [journal] () throws(ColdframeError) in try journal.record(.cleared, intent) }
        catalogue.show(intent)
        failures[intent.uuid] = nil
        let direction = step == .committed || intent.operation == .delete ? "brought to its end" : "undone"
        logger.notice("the \(intent.operation.rawValue) of '\(intent.tag)', which was interrupted, was \(direction)")
    }

    func report(_ error: any Error, _ intent: Intent) {
        let reason = ColdframeError(wrapping: error).message
        failures[intent.uuid] = reason
        logger.error("the \(intent.operation.rawValue) of '\(intent.tag)' is still pending: \(reason)")
    }

    /// For `query-intents`.
    func information() async -> [IntentInfo] {
        let interrupted = Set(journal.interrupted.map(\.intent.uuid))
        var list: [IntentInfo] = []
        for (step, intent) in journal.pending {
            var obstacles: [String] = []
            if interrupted.contains(intent.uuid) {
                obstacles = await IntentImages(graph: graph).obstacles(intent)
                if let failure = failures[intent.uuid] { obstacles.append(failure) }
            }
            list.append(
                IntentInfo(
                    uuid: intent.uuid, operation: intent.operation.rawValue, tag: intent.tag, step: step.rawValue,
                    nodes: intent.images.map(\.nodeName), obstacles: obstacles))
        }
        return list
    }

    private func recover(_ intent: Intent, _ step: Journal.Step, _ nodes: [IntentImages.Match]) async throws {
        if intent.operation == .load, step != .committed, let user = nodes.lazy.compactMap(\.node.uses.first).first {
            // It would be wound back under somebody who has perhaps written to it since.
            throw ColdframeError(.busy, "one of its disks is in use by \(user.user): restart the agent")
        }
        try await mend(intent, step, nodes)
    }

    /// Brings the disks to where an operation at `step` ends. Nobody writes to them.
    func mend(_ intent: Intent, _ step: Journal.Step, _ nodes: [IntentImages.Match]) async throws {
        // None of them can be deleted meanwhile.
        let holds = nodes.map { ($0.node, NodeUse(.holder("recovery"), role: "root", permissions: [], shared: .all)) }
        defer { for (_, use) in holds { use.node?.remove(use) } }
        for (node, use) in holds { try node.add(use) }
        for (image, node) in nodes {
            switch (intent.operation, step) {
            case (.save, .committed), (.transaction, .committed):
                break
            case (.save, _):
                try await delete(from: node) { SetRecord($0.annotation)?.uuidText == intent.uuid }
            case (.delete, _), (.transaction, _):
                for gone in try await delete(from: node, where: { image.snapshot?.isSame(as: $0) == true }) {
                    await forgetSet(SetRecord(gone.annotation)?.uuidText)
                }
            case (.load, .committed):
                try await delete(from: node) { $0.name == intent.undoName }
            case (.load, _):
                try await revert(node, to: intent.undoName)
                try await delete(from: node) { $0.name == intent.undoName }
            }
        }
        if intent.operation == .save, step != .committed { await forgetSet(intent.uuid) }
    }

    /// Returns what was deleted.
    @discardableResult
    private func delete(
        from node: GraphNode, where isTarget: (SnapshotInfo) -> Bool
    ) async throws -> [SnapshotInfo] {
        let bearer = try node.snapshotBearer()
        let targets = bearer.snapshots.filter(isTarget)
        for snapshot in targets {
            try FaultPoint.recoveryDelete.pass(node.name)
            try await still(node) { () throws(ColdframeError) in try bearer.deleteSnapshot(id: snapshot.id) }
        }
        return targets
    }

    private func forgetSet(_ uuid: String?) async {
        guard let sets, let uuid else { return }
        await BlockingPool.shared.run { sets.remove(uuid: uuid) }
    }

    /// While there is an undo its disk is wound back to it, again if need be: nobody has used the disk since.
    private func revert(_ node: GraphNode, to name: String) async throws {
        let bearer = try node.snapshotBearer()
        guard let undo = bearer.snapshots.first(where: { $0.name == name }) else { return }
        try FaultPoint.recoveryRevert.pass(node.name)
        try await still(node) { () throws(ColdframeError) in try bearer.revert(toSnapshot: undo.id) }
    }

    private func still(
        _ node: GraphNode, _ body: @escaping @Sendable () throws(ColdframeError) -> Void
    ) async throws {
        let drain = GraphDrain([node])
        _ = await drain.begin()
        defer { drain.end() }
        try await blocking(body)
    }
}

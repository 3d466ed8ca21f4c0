import ColdframeKit
import LinuxSystem

/// The intent of one `transaction`: what an agent that was killed leaves of it is undone by the next, unless all of it
/// was done.
///
/// A single step is one step on disk as well, and needs no intent.
@AgentActor
final class TransactionJournal {
    private let context: SnapshotContext
    private var intent: Intent?

    init(_ context: SnapshotContext) {
        self.context = context
    }

    /// Records what the steps are going to make; they have been checked.
    func begin(_ steps: [any TransactionStep]) async throws {
        try FaultPoint.transactionBegin.pass()
        guard context.journal != nil, steps.count > 1 else { return }
        try context.refusePending(steps.flatMap(\.drainedNodes))
        var ids = PlannedSnapshotIDs()
        var images: [Intent.Image] = []
        for step in steps {
            if let image = try step.plan(&ids) { images.append(image) }
        }
        let overlays = steps.compactMap(\.overlayName)
        // One overlay is one step in the agent's record.
        guard !images.isEmpty || overlays.count > 1 else { return }
        var names: [String] = []
        for name in images.compactMap(\.snapshot?.name) + overlays where !names.contains(name) { names.append(name) }
        let intent = Intent(
            uuid: UUIDText.generate(), operation: .transaction, tag: names.joined(separator: ", "), images: images)
        try await context.record(.begin, intent)
        self.intent = intent
        context.catalogue.hide(intent)
        // The intent is recorded: from here on the way out is `end`.
        do { try FaultPoint.transactionIntent.pass() } catch {
            await end(isOver: true)
            throw error
        }
    }

    /// What was committed survives the agent in the journal.
    var hasIntent: Bool { intent != nil }

    /// All steps are cut: from here on they stay, whatever happens.
    /// - Parameter shape: how the graph stands now, if a step has changed it: the agent's record follows later.
    func commit(_ shape: GraphShape?) async throws {
        try FaultPoint.transactionCommit.pass()
        intent?.shape = shape
        if let intent { try await context.record(.committed, intent) }
    }

    /// The transaction is over. What could not be undone, or not be written down, stays in the journal.
    func end(isOver: Bool) async {
        guard let intent, isOver else { return }
        // Tests kill here; an error has no meaning any more.
        try? FaultPoint.transactionCommitted.pass()
        self.intent = nil
        context.catalogue.show(intent)
        await context.clear(intent)
    }
}

/// The ids that the snapshots of one transaction are going to have.
struct PlannedSnapshotIDs {
    private var greatest: [String: UInt64] = [:]

    /// The next one on a node that has these snapshots: above all of them and all that were planned.
    @AgentActor
    mutating func take(on node: GraphNode, snapshots: [SnapshotInfo]) -> UInt64 {
        let id = max(greatest[node.name] ?? 0, snapshots.compactMap { UInt64($0.id) }.max() ?? 0) + 1
        greatest[node.name] = id
        return id
    }
}

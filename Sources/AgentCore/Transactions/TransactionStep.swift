import ColdframeKit

/// One action of a transaction, whoever asked for it: a client by `transaction`, or a snapshot job for a disk.
///
/// The coordinator calls `check`, `cut`, then `commit` or `abort`, then `clean`, each once at most.
@AgentActor
protocol TransactionStep: AnyObject {
    /// The nodes that are drained from before the cut until the transaction lets go of them.
    var drainedNodes: [GraphNode] { get }
    /// Finds what would forbid the step. May take long; changes nothing.
    func check() async throws
    /// What recovery needs to undo the cut after a crash, to be recorded before it; nil if a crash leaves nothing of it.
    /// The cut then makes exactly what was planned.
    func plan(_ ids: inout PlannedSnapshotIDs) throws -> Intent.Image?
    /// The cut puts users of nodes on others: a restarted agent has to be told.
    var changesGraph: Bool { get }
    /// The overlay that the cut puts above a node, as the client calls it.
    var overlayName: String? { get }
    /// Does the step in a way that `abort` can undo. Bounded in time: a guest may be standing still.
    func cut() async throws
    /// Makes it final. Cannot fail.
    func commit() async
    /// Undoes what `cut` did, also after a `cut` that threw. A throw says what is left behind.
    func abort() async throws
    /// Gives up what the step held. Comes last, whatever came before.
    func clean() async
    /// Nothing of the step is left in its image: it was not cut, or its abort went well.
    var isUndone: Bool { get }
}

extension TransactionStep {
    var changesGraph: Bool { false }
    var overlayName: String? { nil }
    func check() async throws {}
    func plan(_ ids: inout PlannedSnapshotIDs) throws -> Intent.Image? { nil }
    func commit() async {}
    func abort() async throws {}
    func clean() async {}
    var isUndone: Bool { true }
}

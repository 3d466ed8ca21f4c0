import LinuxSystem

/// The named places in operations over several files at which tests kill the agent, make it fail or let it wait: the one
/// list, over which the campaigns loop (`coldframed --fault-points` prints it).
///
/// `COLDFRAME_FAULT=name=kill` ends the process there as kill -9 does, `name=error` throws, `name=pause:MS` waits; several
/// are separated by commas. Points that are passed once per node carry its name: `save.cut.disk0`. Without the variable
/// a point costs one test of a constant.
public enum FaultPoint: String, CaseIterable, Sendable {
    // In the order in which they are passed. "Done" is what has happened when the point is reached.

    /// Nothing is checked yet.
    case saveBegin = "save.begin"
    /// The intent is on stable storage.
    case saveIntent = "save.intent"
    /// QEMU has been told to migrate.
    case saveArmed = "save.armed"
    /// The guest stands still at the barrier.
    case saveHeld = "save.held"
    /// This node's disk is cut; of the others some may be.
    case saveCut = "save.cut"
    /// All are cut, the intent does not name the snapshots yet.
    case saveStream = "save.stream"
    /// The stream has ended, and nothing points to the state.
    case saveAttach = "save.attach"
    /// The state is attached, the set not committed.
    case saveCommit = "save.commit"
    /// The set is committed, the intent not cleared.
    case saveCommitted = "save.committed"

    case loadBegin = "load.begin"
    case loadIntent = "load.intent"
    /// The guest stands still, no disk is touched.
    case loadStopped = "load.stopped"
    /// This node has its undo, and is not wound back.
    case loadRewind = "load.rewind"
    /// All disks are wound back; the guest, if there is one, has its old memory.
    case loadState = "load.state"
    /// QEMU was told to read the state.
    case loadFeed = "load.feed"
    /// The guest could not be loaded, and the journal says so; no disk is put back yet.
    case loadLost = "load.lost"
    /// The guest has the new memory, the load is not committed.
    case loadCommit = "load.commit"
    /// Committed; the undos are there.
    case loadCommitted = "load.committed"
    /// The guest goes on; the undos are there.
    case loadContinued = "load.continued"

    // A load by replacement passes these between the points of a load that both ways have.

    /// The new process runs and has no state.
    case replaceSpawned = "replace.spawned"
    /// It has the whole state; the old one runs.
    case replaceFed = "replace.fed"
    /// All disks are wound back and belong to the new process; nothing is committed.
    case replacePassed = "replace.passed"
    /// The old process has ended; the undos are there.
    case replaceEnded = "replace.ended"

    case deleteBegin = "delete.begin"
    case deleteIntent = "delete.intent"
    /// This node's snapshot is about to go.
    case deleteNode = "delete"
    /// Gone from all nodes, the intent not cleared.
    case deleteDone = "delete.done"

    case transactionBegin = "transaction.begin"
    case transactionIntent = "transaction.intent"
    /// This node's snapshot is made.
    case transactionCut = "transaction.cut"
    /// All steps are done, nothing is committed.
    case transactionCommit = "transaction.commit"
    /// Committed, and the agent's record says where clients find their nodes.
    case transactionRecorded = "transaction.recorded"
    case transactionCommitted = "transaction.committed"

    // A mirror that pivots, or the commit of a topmost image.

    /// The users of the source are on the copy and held back still; nothing is recorded.
    case pivotMoved = "pivot.moved"
    /// The agent's record says where they are.
    case pivotRecorded = "pivot.recorded"

    // Nodes that are reopened.

    /// The drivers that they had are closed.
    case reopenClosed = "reopen.closed"
    /// All have their new drivers, their users are held back still; nothing is recorded.
    case reopenOpened = "reopen.opened"
    /// The agent's record says what they are.
    case reopenRecorded = "reopen.recorded"

    // A child that comes to a node in use, or goes.

    /// The node has its new children, its users are held back still; nothing is recorded.
    case childrenChanged = "children.changed"
    /// The agent's record says which children it has.
    case childrenRecorded = "children.recorded"

    /// Of the two processes that an interrupted replacement had left one has ended, and the intent names it still.
    case recoveryReplaced = "recovery.replaced"
    /// An interrupted intent is about to be worked on.
    case recoveryBegin = "recovery.begin"
    /// This node is about to be wound back to the undo of an interrupted load.
    case recoveryRevert = "recovery.revert"
    /// A snapshot is about to be deleted from this node.
    case recoveryDelete = "recovery.delete"
    /// All nodes are mended, the intent not cleared.
    case recoveryDone = "recovery.done"
    /// A guest that was taken over is as it should be, the intent not cleared.
    case recoverySettled = "recovery.settled"
    /// This node's image was not closed in order, and its leaked clusters are about to be freed.
    case recoveryLeaks = "recovery.leaks"
    /// They are free; the image counts as open.
    case recoveryLeaksFreed = "recovery.leaks-freed"

    /// The point is passed once per node, under its name.
    public var isPerNode: Bool {
        switch self {
        case .saveCut, .loadRewind, .deleteNode, .transactionCut, .recoveryRevert, .recoveryDelete, .recoveryLeaks,
            .recoveryLeaksFreed:
            true
        default: false
        }
    }

    /// What the list shows: the name, with `NODE` where a node's stands.
    public var listing: String { isPerNode ? "\(rawValue).NODE" : rawValue }

    /// Passes the point, or does what the environment says.
    /// - Parameter node: the node's name at points that have one.
    public func pass(_ node: String? = nil) throws(ColdframeError) {
        guard let table = Self.table else { return }
        let name = node.map { "\(rawValue).\($0)" } ?? rawValue
        switch table[name] {
        case nil: return
        case .kill: ProcessControl.killSelf()
        case .error: throw ColdframeError(.io, "Fault point '\(name)' was told to fail")
        case .pause(let milliseconds): SystemThread.sleep(milliseconds: milliseconds)
        }
    }

    private enum Action: Sendable {
        case kill, error
        case pause(Int)
    }

    private static let table: [String: Action]? = {
        guard let text = ProcessControl.environment("COLDFRAME_FAULT"), !text.isEmpty else { return nil }
        var table: [String: Action] = [:]
        for item in text.split(separator: ",") {
            let parts = item.split(separator: "=", maxSplits: 1)
            guard parts.count == 2 else { continue }
            switch parts[1] {
            case "kill": table[String(parts[0])] = .kill
            case "error": table[String(parts[0])] = .error
            default:
                let words = parts[1].split(separator: ":")
                if words.count == 2, words[0] == "pause", let milliseconds = Int(words[1]) {
                    table[String(parts[0])] = .pause(milliseconds)
                }
            }
        }
        return table
    }()
}

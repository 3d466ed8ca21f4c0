import LinuxSystem

/// A guest whose process can be replaced by a new one that holds another state (`snapshot-load`, way `replace`).
///
/// The two processes stand in two slots, 0 and 1, each with sockets of its own. One slot is free except while a load by
/// replacement lasts, or after an agent has died in one.
@AgentActor
public protocol ReplaceableGuest: Guest {
    /// Everything that forbids a second process beside this one now, one sentence each that says what to do. Empty: it
    /// can be done.
    /// - Parameter stateByteCount: the length of the state that it will hold.
    func replacementBlockers(stateByteCount: UInt64) async throws -> [String]
    /// Where the second process will stand.
    var freeSlot: Int { get }
    /// Starts the second process. It can read the disks and not write to them, and waits for its state. On a throw
    /// nothing is left of it.
    func beginReplacement() async throws -> any GuestReplacement
}

/// A second process of a guest. The verbs are called in this order: `loaded`, `passDisks`, `takePlace`, `endPredecessor`; or
/// `abandon` instead of `takePlace`, which leaves the guest as it was.
@AgentActor
public protocol GuestReplacement: AnyObject, Sendable {
    /// The write end of the state's stream, which does not block. A thread of the core writes and closes it.
    nonisolated var stream: Descriptor { get }
    /// Suspends until the process holds the whole state that was written to `stream`. Its vCPUs stand still. Throws if it
    /// does not load, or has ended.
    func loaded() async throws
    /// Passes the right to write to the disks from the old process, whose vCPUs stand still, to the new one. The disks'
    /// gates are closed. From here on the end of the old process is not told to the core. On a throw nothing has changed.
    func passDisks() throws
    /// Undoes `passDisks`; the gates are closed still.
    func takeDisksBack()
    /// The new process is the guest from here on. It stands still.
    func takePlace() -> any Guest
    /// Ends the old process, and gives the new one what only one of them can have.
    func endPredecessor() async throws
    /// Ends the new process. Idempotent.
    func abandon() async
}

import LinuxSystem
import QAPI
import QMPWire

/// How a save captures the RAM (`SnapshotSaveMode` without `auto` and `disks`).
public enum CaptureWay: String, Sendable {
    /// `background-snapshot`: RAM streams after the pause.
    case live
    /// Precopy migration: RAM streams before the pause.
    case precopy
    /// `stop`, then everything.
    case paused
}

/// Whether vCPUs run.
public enum GuestRunState: Sendable, Equatable {
    case running
    /// Any state in which `cont` would run it (paused, postmigrate, prelaunch …), by QEMU's name.
    case stopped(String)
    /// Gone or not reachable.
    case gone(String)
}

/// What must be the same when a state is loaded as when it was saved.
public struct MachineIdentity: Sendable, Equatable {
    /// Versioned machine type, as `pc-q35-7.2`.
    public var machineType: String
    public var vmmVersion: String
    public var commandLine: [String]
    public var memoryByteCount: UInt64
    public init(machineType: String, vmmVersion: String, commandLine: [String], memoryByteCount: UInt64) {
        self.machineType = machineType
        self.vmmVersion = vmmVersion
        self.commandLine = commandLine
        self.memoryByteCount = memoryByteCount
    }
}

/// A running guest: verbs that the orchestration of save and load is made of. The order of the verbs is AgentCore's.
@AgentActor
public protocol Guest: AnyObject, Sendable {
    /// QAPI's id of the guest.
    var id: String { get }
    /// Its disks, in its order: the names by which it knows them, which stay, and the nodes that serve them now, which
    /// overlays and jobs that pivot change.
    var disks: [GuestDisk] { get }
    /// For `query-guest`.
    func information() async -> GuestInfo
    func runState() async throws -> GuestRunState
    func machineIdentity() async throws -> MachineIdentity
    /// Everything that forbids a capture this way now, one sentence each, all at once. Empty: it can be done.
    func blockers(for way: CaptureWay) async throws -> [String]
    /// Does ahead of a capture what would make its pause longer; may take long, leaves the guest running, and comes back
    /// early once `isCancelled`. What it cannot do makes the pause longer and nothing else.
    func prepareCapture(way: CaptureWay, isCancelled: @escaping @Sendable () -> Bool) async
    /// Arms a capture: the keeper holds the stream's copy, QEMU is told to migrate. Returns when QEMU has accepted.
    /// On a throw the guest is as before.
    func beginCapture(way: CaptureWay) async throws -> any GuestCapture
    /// The guest's clock at the moment of a state, in nanoseconds of its running time, found in the last bytes of the state;
    /// nil if they do not tell.
    nonisolated func clockNanoseconds(inStateTail tail: [UInt8]) -> UInt64?
    func stop() async throws
    func cont() async throws
    /// Loads a state into this process, whose vCPUs are stopped and whose disks are rewound. On a throw the RAM is lost.
    /// `imagePath` is a small qcow2 file with one snapshot `tag` that holds the state. What came of it can be asked, by the
    /// next agent too, until `concludeLoad`.
    func loadState(imagePath: String, tag: String) async throws
    /// What came of a load whose end the agent that had begun it did not see.
    func interruptedLoad() async throws -> InterruptedLoad
    /// The outcome of the load is on stable storage: the process may forget it. Idempotent, also without a load.
    func concludeLoad() async
    /// With `true`: the RAM is of no moment, and clients cannot make the guest go on until it is reset or loaded. A throw
    /// says that the next agent will not know it; this one does.
    func setMemoryLost(_ isLost: Bool) throws
    /// It ran before this agent did, perhaps under another one, whose captures have come to an end since.
    var wasTakenOver: Bool { get }
    /// While held, commands of clients that would make the guest go on, or change what it is, are refused.
    func setHeld(_ isHeld: Bool)
    /// Runs a QMP command that the agent does not own.
    func passThrough(_ command: String, arguments: JSONObject?) async throws(QMPError) -> JSONValue
    /// The guest's own `query-commands` and `query-qmp-schema`, cached.
    func ownCommands() async throws -> [String]
    func ownSchema() async throws -> [JSONValue]
    /// Ends it, or, if somebody else has started it, lets it go for good. The process is gone when it returns, or at least
    /// has nothing of the agent's any more.
    func remove(force: Bool) async throws
    /// The agent ends and the guest goes on: it waits for its disks until the next agent takes it over.
    func leave() async
}

/// What came of a load.
public enum InterruptedLoad: Sendable, Equatable {
    /// It had not begun: the RAM is what it was.
    case notBegun
    /// The RAM is the loaded one.
    case loaded
    /// The RAM is neither.
    case failed(String)
}

extension Guest {
    /// The nodes that serve its disks now, in its order.
    public var diskNodeNames: [String] { disks.map(\.nodeName) }

    public func prepareCapture(way: CaptureWay, isCancelled: @escaping @Sendable () -> Bool) async {}
    public nonisolated func clockNanoseconds(inStateTail tail: [UInt8]) -> UInt64? { nil }
}

/// A guest whose state can be taken while it stands still, and that stands still afterwards as it did before.
@AgentActor
public protocol StoppedStateSaving: Guest {
    /// Writes the state of the stopped guest into a small qcow2 file with no snapshot yet, as snapshot `tag`.
    func saveState(imagePath: String, tag: String) async throws
}

/// One capture under way. The verbs are called in this order: `stopping`, `stopped`, `release`, `finish`; or `abandon` at any time
/// after `beginCapture`, which leaves the guest in the run state it had before.
@AgentActor
public protocol GuestCapture: AnyObject, Sendable {
    /// The read end of the stream. A thread of the core reads it to its end.
    nonisolated var stream: Descriptor { get }
    /// Suspends until the vCPUs are off; QEMU's drain and flushes follow. Throws as `stopped` does.
    func stopping() async throws
    /// Suspends until the vCPUs are off, drain and flush are done and the barrier's flush is held. Throws if the
    /// migration fails before that, or at `deadline`.
    func stopped() async throws
    /// Lets the guest go on.
    func release()
    /// After `release`: suspends until the guest runs again, or the capture has failed or ended without that.
    func goneOn() async
    /// Bytes of RAM that are sent and will be sent in all, for progress; nil when QEMU does not say.
    func progress() async -> (current: UInt64, total: UInt64)?
    /// After the stream's end: waits for QEMU's word that the migration is completed, brings the guest back to the
    /// recorded run state and returns the pause between STOP and RESUME (nil for a guest that was stopped before).
    func finish() async throws -> CaptureResult
    /// Gives the capture up: drains the stream to its end where the way needs it, releases the barrier, restores the
    /// run state. Idempotent. The core has stopped reading `stream`.
    func abandon() async
}

extension GuestCapture {
    public func stopping() async throws {}
    public func goneOn() async {}
}

/// What a capture was.
public struct CaptureResult: Sendable {
    /// STOP to RESUME by QEMU's stamps.
    public var pauseNanoseconds: UInt64?
    public init(pauseNanoseconds: UInt64?) { self.pauseNanoseconds = pauseNanoseconds }
}

/// What a module contributes for one value of the guest driver (`GuestOptions`).
public protocol GuestFactory: Sendable {
    var driverName: String { get }
    /// Starts the guest or attaches it, unless an earlier agent had it: then it is taken over. Its disks are nodes of the graph. When it returns the guest's QMP answers.
    @AgentActor
    func add(_ options: GuestOptions, services: any AgentServices) async throws -> any Guest
    /// Whether the guest of these options, which an earlier agent had, still runs.
    @AgentActor
    func survives(_ options: GuestOptions, services: any AgentServices) async throws -> Bool
    /// Takes the guest over that an earlier agent had; nil if it has ended meanwhile. Starts none.
    @AgentActor
    func takeOver(_ options: GuestOptions, services: any AgentServices) async throws -> (any Guest)?
    /// An earlier agent has died in a load by replacement, and may have left two processes of the guest. Ends the one that is
    /// not to go on; where both are gone, or the other one is, nothing is left to do. Idempotent.
    /// - Parameters:
    ///   - slot: where the new process stands.
    ///   - isCommitted: the new one goes on, otherwise the old one.
    @AgentActor
    func settleReplacement(
        _ options: GuestOptions, slot: Int, isCommitted: Bool, services: any AgentServices
    ) async throws
}

extension GuestFactory {
    /// For guests that cannot be replaced.
    public func settleReplacement(
        _ options: GuestOptions, slot: Int, isCommitted: Bool, services: any AgentServices
    ) async throws {}
}

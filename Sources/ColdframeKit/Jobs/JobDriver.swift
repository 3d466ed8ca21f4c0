/// What a job does. The registry moves it through QEMU's states and sends the events; the driver does the work.
///
/// All methods run on the actor and may suspend. `run` is called once; then, if it returned, `prepare` and `commit`,
/// otherwise `abort`; `clean` always comes last. A job that never started is aborted and cleaned without `run`.
@AgentActor
public protocol JobDriver: AnyObject, Sendable {
    /// QAPI's `JobType`.
    var jobType: String { get }
    /// It works on a node: it has a speed and an I/O status, and sends the events `BLOCK_JOB_*`.
    var isBlockJob: Bool { get }
    /// Does the work. At checkpoints (`control.checkpoint()`) pause, cancel and speed limits take effect.
    func run(_ control: any JobControl) async throws
    func prepare() async throws
    func commit() async
    func abort() async
    func clean() async
    /// Whether `job-complete` has a meaning in the ready state.
    var canComplete: Bool { get }
    func complete() async throws
    /// Asked by a cancel that is not forced: true if the job will end well by itself instead.
    func endSoftly() -> Bool
    /// What is whole is kept, and the job a success, also if a cancel came when nothing was left to be done.
    var outlivesLateCancel: Bool { get }
    /// It has brought its own nodes to rest and keeps them so until it ends: clients see it as paused, as in QEMU.
    var isHeldStill: Bool { get }
}

extension JobDriver {
    public var isBlockJob: Bool { false }
    public func prepare() async throws {}
    public func commit() async {}
    public func abort() async {}
    public func clean() async {}
    public var canComplete: Bool { false }
    public func complete() async throws {}
    public func endSoftly() -> Bool { false }
    public var outlivesLateCancel: Bool { false }
    public var isHeldStill: Bool { false }
}

/// What a running job may ask of the registry.
///
/// A job that works on a thread of its own looks at `isInterrupted` between steps, and returns to the actor when it is
/// set: there it passes a checkpoint and goes on.
@AgentActor
public protocol JobControl: AnyObject, Sendable {
    var jobID: String { get }
    /// Cancel was asked for. Long steps look at it between checkpoints. Any thread.
    nonisolated var isCancelled: Bool { get }
    /// A checkpoint has something to do: a pause or a cancel. Any thread.
    nonisolated var isInterrupted: Bool { get }
    /// Suspends while the job is paused; throws `.cancelled` once cancel was asked for.
    func checkpoint() async throws
    /// While set, pause has no effect: the job is at a place where it must go on (a capture).
    func setPausable(_ isPausable: Bool)
    /// Sets progress in bytes. Any thread.
    nonisolated func setProgress(current: UInt64, total: UInt64)
    /// Calls `action` once when cancel is asked for, at once if it was; replaces an earlier one. nil removes it.
    func onCancel(_ action: (@Sendable @AgentActor () -> Void)?)
    /// Blocks the thread for as long as the speed limit demands after this many bytes, or until it is interrupted.
    nonisolated func throttle(byteCount: UInt64)
    /// Blocks the thread until `isReady`, at most for the given time, or until it is interrupted. `wake` makes it look.
    nonisolated func wait(milliseconds: Int, until isReady: () -> Bool)
    nonisolated func wake()
    /// The job is in step with its source: from here on it may be completed.
    func becomeReady()
    /// Tells clients of an I/O error and does what `policy` says about it. After `.stop` the job is paused: pass a
    /// checkpoint.
    func report(_ error: ColdframeError, isRead: Bool, policy: JobErrorPolicy) -> JobErrorAction
}

/// What becomes of an I/O error of a job (`BlockdevOnError`).
public enum JobErrorPolicy: Sendable {
    case report, ignore, stop
    /// `stop` where the disk is full, `report` otherwise.
    case stopIfFull
}

/// What was done about it (`BlockErrorAction`).
public enum JobErrorAction: String, Sendable {
    case report, ignore, stop
}

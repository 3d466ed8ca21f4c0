/// What a job does. The registry moves it through QEMU's states and sends the events; the driver does the work.
///
/// All methods run on the actor and may suspend. `run` is called once; then, if it returned, `prepare` and `commit`,
/// otherwise `abort`; `clean` always comes last.
@AgentActor
public protocol JobDriver: AnyObject, Sendable {
    /// QAPI's `JobType`.
    var jobType: String { get }
    /// Does the work. At checkpoints (`control.checkpoint()`) pause, cancel and speed limits take effect.
    func run(_ control: any JobControl) async throws
    func prepare() async throws
    func commit() async
    func abort() async
    func clean() async
    /// Whether `job-complete` has a meaning in the ready state.
    var canComplete: Bool { get }
    func complete() async throws
}

extension JobDriver {
    public func prepare() async throws {}
    public func commit() async {}
    public func abort() async {}
    public func clean() async {}
    public var canComplete: Bool { false }
    public func complete() async throws {}
}

/// What a running job may ask of the registry.
@AgentActor
public protocol JobControl: AnyObject, Sendable {
    var jobID: String { get }
    /// Cancel was asked for. Long steps look at it between checkpoints. Any thread.
    nonisolated var isCancelled: Bool { get }
    /// Suspends while the job is paused; throws `.cancelled` once cancel was asked for.
    func checkpoint() async throws
    /// While set, pause has no effect: the job is at a place where it must go on (a capture).
    func setPausable(_ isPausable: Bool)
    /// Sets progress in bytes. Any thread.
    nonisolated func setProgress(current: UInt64, total: UInt64)
    /// Calls `action` once when cancel is asked for, at once if it was; replaces an earlier one. nil removes it.
    func onCancel(_ action: (@Sendable @AgentActor () -> Void)?)
}

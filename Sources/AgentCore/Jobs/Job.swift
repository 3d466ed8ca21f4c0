import ColdframeKit
import LinuxSystem
import QAPI
import Synchronization

/// One job: its state, its driver and what its user asked of it.
///
/// State changes only along `JobTable`; each sends `JOB_STATUS_CHANGE` before anything else can happen.
@AgentActor
final class Job: JobControl {
    nonisolated let jobID: String
    let driver: any JobDriver
    let autoFinalize: Bool
    let autoDismiss: Bool
    private(set) var status: JobStatus = .undefined
    /// Why it failed; set once.
    private(set) var failure: ColdframeError?
    /// Its user, or an I/O error, paused it.
    private(set) var isUserPaused = false
    /// Jobs that conclude together; alone unless a transaction says otherwise.
    let group: JobGroup
    /// Bytes per second; 0 for no limit.
    private(set) var speed: Int64 = 0
    private(set) var ioStatus = BlockDeviceIoStatus.ok
    /// A cancel was asked for that lets the job end well.
    private(set) var endsSoftly = false
    /// It was begun.
    var hasStarted = false
    /// Its driver's `run` has ended.
    private(set) var hasStopped = false

    let events: JobEvents
    private var resumeWaiters: [CheckedContinuation<Void, Never>] = []
    private var stopWaiters: [CheckedContinuation<Void, Never>] = []
    private var cancelAction: (@Sendable @AgentActor () -> Void)?
    private nonisolated let isPausable = Atomic<Bool>(true)
    private nonisolated let pauseFlag = Atomic<Bool>(false)
    private nonisolated let cancelFlag = Atomic<Bool>(false)
    private nonisolated let waitFlag = Atomic<Bool>(false)
    private nonisolated let changed = ConditionVariable()
    private nonisolated let clock: any WaitClock
    private nonisolated let limiter: RateLimiter
    /// Counts changes of the speed: whoever waits for the old one's sake goes on.
    private nonisolated let speedCount = Atomic<UInt64>(0)
    private nonisolated let progress: Locked<(current: UInt64, total: UInt64)>

    init(
        id: String, driver: any JobDriver, group: JobGroup, autoFinalize: Bool, autoDismiss: Bool, events: JobEvents,
        clock: any WaitClock
    ) {
        jobID = id
        self.driver = driver
        self.group = group
        self.autoFinalize = autoFinalize
        self.autoDismiss = autoDismiss
        self.events = events
        self.clock = clock
        limiter = RateLimiter { clock.nanoseconds }
        // Jobs that count no bytes are done or not.
        progress = Locked((0, driver.isBlockJob ? 0 : 1))
        group.members.insert(self, at: 0)
    }

    // MARK: State

    func move(to next: JobStatus) {
        precondition(JobTable.successors(of: status).contains(next), "job \(jobID): \(status) to \(next)")
        guard next != status else { return }
        status = next
        events.statusChanged(self)
    }

    func fail(_ error: ColdframeError) {
        if failure == nil { failure = error }
    }

    /// Nothing leaves `paused` but to `running`: whatever comes next passes through there.
    private func leavePause() {
        switch status {
        case .paused: move(to: .running)
        case .standby: move(to: .ready)
        default: break
        }
        let waiters = resumeWaiters
        resumeWaiters = []
        for waiter in waiters { waiter.resume() }
    }

    /// The driver's `run` has ended, well or not.
    func stopped() {
        hasStopped = true
        let waiters = stopWaiters
        stopWaiters = []
        for waiter in waiters { waiter.resume() }
    }

    func untilStopped() async {
        guard hasStarted else { return }
        while !hasStopped { await withCheckedContinuation { stopWaiters.append($0) } }
    }

    // MARK: What the user asks

    func requestPause() {
        isUserPaused = true
        pauseFlag.store(true, ordering: .releasing)
        changed.broadcast()
    }

    func requestResume() {
        isUserPaused = false
        ioStatus = .ok
        pauseFlag.store(false, ordering: .releasing)
        leavePause()
    }

    /// Marks the job as cancelled and wakes it.
    func requestCancel() {
        guard !cancelFlag.exchange(true, ordering: .acquiringAndReleasing) else { return }
        requestResume()
        changed.broadcast()
        let action = cancelAction
        cancelAction = nil
        action?()
    }

    /// A cancel that is not forced. False if the job knows no soft end.
    func requestSoftEnd() -> Bool {
        guard driver.endSoftly() else { return false }
        endsSoftly = true
        if isUserPaused { requestResume() }
        changed.broadcast()
        return true
    }

    func setSpeed(_ bytesPerSecond: Int64) {
        speed = bytesPerSecond
        limiter.setSpeed(UInt64(bytesPerSecond))
        speedCount.add(1, ordering: .releasing)
        changed.broadcast()
    }

    /// It has requests on their way, or is about to: not while it waits for a limit, for its end or for its user.
    var isBusy: Bool {
        hasStarted && !hasStopped && status != .paused && status != .standby && !waitFlag.load(ordering: .relaxed)
    }

    // MARK: JobControl

    nonisolated var isCancelled: Bool { cancelFlag.load(ordering: .acquiring) }

    nonisolated var isInterrupted: Bool {
        isCancelled || (pauseFlag.load(ordering: .acquiring) && isPausable.load(ordering: .acquiring))
    }

    func checkpoint() async throws {
        while true {
            if isCancelled { throw ColdframeError(.cancelled, "Operation canceled") }
            guard isUserPaused, isPausable.load(ordering: .acquiring) else { return }
            switch status {
            case .running: move(to: .paused)
            case .ready: move(to: .standby)
            default: break
            }
            await withCheckedContinuation { resumeWaiters.append($0) }
        }
    }

    func setPausable(_ isPausable: Bool) { self.isPausable.store(isPausable, ordering: .releasing) }

    nonisolated func setProgress(current: UInt64, total: UInt64) {
        progress.withLock { $0 = (current, max(current, total)) }
    }

    /// The work is over. Jobs on nodes count their bytes exactly; the others have done all that they do, also where they
    /// failed before there were bytes to count.
    func endProgress(isDone: Bool) {
        if driver.isBlockJob { return }
        progress.withLock { if isDone || $0.total == 1 { $0 = (max($0.total, 1), max($0.total, 1)) } }
    }

    var currentProgress: (current: UInt64, total: UInt64) { progress.withLock { $0 } }

    func onCancel(_ action: (@Sendable @AgentActor () -> Void)?) {
        if let action, isCancelled {
            action()
        } else {
            cancelAction = action
        }
    }

    nonisolated func throttle(byteCount: UInt64) {
        let count = speedCount.load(ordering: .acquiring)
        let delay = limiter.delayNanoseconds(after: byteCount)
        guard delay > 0 else { return }
        wait(nanoseconds: delay) { speedCount.load(ordering: .acquiring) != count }
    }

    nonisolated func wait(milliseconds: Int, until isReady: () -> Bool) {
        wait(nanoseconds: UInt64(clamping: milliseconds) * 1_000_000, until: isReady)
    }

    private nonisolated func wait(nanoseconds: UInt64, until isReady: () -> Bool) {
        waitFlag.store(true, ordering: .relaxed)
        defer { waitFlag.store(false, ordering: .relaxed) }
        clock.wait(on: changed, nanoseconds: nanoseconds) { isInterrupted || isReady() }
    }

    nonisolated func wake() { changed.broadcast() }

    func becomeReady() {
        move(to: .ready)
        events.ready(self)
    }

    func report(_ error: ColdframeError, isRead: Bool, policy: JobErrorPolicy) -> JobErrorAction {
        let isFull = error.errno == Errno.noSpace
        let action: JobErrorAction =
            switch policy {
            case .report: .report
            case .ignore: .ignore
            case .stop: .stop
            case .stopIfFull: isFull ? .stop : .report
            }
        events.failed(self, isRead: isRead, action: action)
        if action == .stop {
            if !isUserPaused { requestPause() }
            if ioStatus == .ok { ioStatus = isFull ? .nospace : .failed }
        }
        return action
    }
}

/// Jobs that conclude together. Every single job is a group of one.
@AgentActor
final class JobGroup {
    /// Newest first.
    fileprivate(set) var members: [Job] = []
    /// One of them has failed and the others are being brought down.
    var isAborting = false
    /// They are being prepared and committed: no verb comes in between, as none does in QEMU.
    var isFinalizing = false
    nonisolated init() {}

    /// Of a job that was refused when it was made.
    func remove(_ job: Job) { members.removeAll { $0 === job } }
}

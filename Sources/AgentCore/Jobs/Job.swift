import ColdframeKit
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
    /// Its user paused it (as against a pause for a drain).
    private(set) var isUserPaused = false
    /// Jobs that conclude together; alone unless a transaction says otherwise.
    let group: JobGroup

    private let postStatus: @Sendable @AgentActor (String, JobStatus) -> Void
    private var isPausable = true
    private var resumeWaiters: [CheckedContinuation<Void, Never>] = []
    private var cancelAction: (@Sendable @AgentActor () -> Void)?
    private nonisolated let cancelFlag = Atomic<Bool>(false)
    private nonisolated let progress = Mutex<(current: UInt64, total: UInt64)>((0, 1))

    init(
        id: String, driver: any JobDriver, group: JobGroup, autoFinalize: Bool, autoDismiss: Bool,
        postStatus: @escaping @Sendable @AgentActor (String, JobStatus) -> Void
    ) {
        jobID = id
        self.driver = driver
        self.group = group
        self.autoFinalize = autoFinalize
        self.autoDismiss = autoDismiss
        self.postStatus = postStatus
        group.members.insert(self, at: 0)
    }

    // MARK: State

    func move(to next: JobStatus) {
        precondition(JobTable.successors(of: status).contains(next), "job \(jobID): \(status) to \(next)")
        guard next != status else { return }
        status = next
        postStatus(jobID, next)
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

    // MARK: What the user asks

    func requestPause() {
        isUserPaused = true
    }

    func requestResume() {
        isUserPaused = false
        leavePause()
    }

    /// Marks the job as cancelled and wakes it.
    func requestCancel() {
        guard !cancelFlag.exchange(true, ordering: .acquiringAndReleasing) else { return }
        isUserPaused = false
        leavePause()
        let action = cancelAction
        cancelAction = nil
        action?()
    }

    // MARK: JobControl

    nonisolated var isCancelled: Bool { cancelFlag.load(ordering: .acquiring) }

    func checkpoint() async throws {
        while true {
            if isCancelled { throw ColdframeError(.cancelled, "Operation canceled") }
            guard isUserPaused, isPausable else { return }
            switch status {
            case .running: move(to: .paused)
            case .ready: move(to: .standby)
            default: break
            }
            await withCheckedContinuation { resumeWaiters.append($0) }
        }
    }

    func setPausable(_ isPausable: Bool) { self.isPausable = isPausable }

    nonisolated func setProgress(current: UInt64, total: UInt64) {
        progress.withLock { $0 = (current, max(current, total)) }
    }

    /// The work is done, whether it counted bytes or not.
    func completeProgress() {
        progress.withLock { $0 = (max($0.total, 1), max($0.total, 1)) }
    }

    func onCancel(_ action: (@Sendable @AgentActor () -> Void)?) {
        if let action, isCancelled {
            action()
        } else {
            cancelAction = action
        }
    }

    /// As `query-jobs` shows it.
    var information: JobInfo {
        let progress = progress.withLock { $0 }
        return JobInfo(
            id: jobID, type: JobType(rawValue: driver.jobType) ?? .create, status: status,
            currentProgress: Int64(clamping: progress.current), totalProgress: Int64(clamping: progress.total),
            error: failure?.message)
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
}

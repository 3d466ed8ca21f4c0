import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// Holds all jobs and moves them through QEMU's states. The verbs are in `JobRegistry+Verbs.swift`.
@AgentActor
public final class JobRegistry {
    /// Newest first, as `query-jobs` lists them.
    private(set) var jobs: [Job] = []
    private let events: JobEvents
    private let clock: any WaitClock
    private var idleWaiters: [CheckedContinuation<Void, Never>] = []
    /// The agent is ending: no more jobs.
    private var isClosed = false

    /// `post` sends an event to all monitors.
    public init(
        clock: any WaitClock = HostClock(),
        post: @escaping @Sendable @AgentActor (_ event: String, _ data: JSONObject) -> Void
    ) {
        self.clock = clock
        events = JobEvents(post: post)
    }

    // MARK: Beginning

    /// Makes a job and starts it: `created` and `running` are sent before this returns, its work begins afterwards.
    public func start(
        id: String?, driver: any JobDriver, autoFinalize: Bool = true, autoDismiss: Bool = false, speed: Int64 = 0
    ) throws {
        let job = try create(
            id: id, driver: driver, group: JobGroup(), autoFinalize: autoFinalize, autoDismiss: autoDismiss,
            speed: speed)
        begin(job)
    }

    /// Throws what forbids the id.
    func checkID(_ id: String?) throws {
        guard !isClosed else { throw ColdframeError(.busy, "The agent is ending") }
        guard let id else { throw ColdframeError(.invalidArgument, "An explicit job ID is required") }
        guard Identifier.isWellFormed(id) else { throw ColdframeError(.invalidArgument, "Invalid job ID '\(id)'") }
        guard !jobs.contains(where: { $0.jobID == id }) else {
            throw ColdframeError(.alreadyExists, "Job ID '\(id)' already in use")
        }
    }

    func create(
        id: String?, driver: any JobDriver, group: JobGroup, autoFinalize: Bool, autoDismiss: Bool, speed: Int64 = 0
    ) throws -> Job {
        // A job on a node without a name takes that of the guest's device, which is empty here.
        let id = id ?? (driver.isBlockJob ? "" : nil)
        try checkID(id)
        let job = Job(
            id: id ?? "", driver: driver, group: group, autoFinalize: autoFinalize, autoDismiss: autoDismiss,
            events: events, clock: clock)
        jobs.insert(job, at: 0)
        job.move(to: .created)
        guard speed >= 0 else {
            remove(job)
            group.remove(job)
            throw ColdframeError(.invalidArgument, "Parameter 'speed' expects a non-negative value")
        }
        job.setSpeed(speed)
        return job
    }

    /// - Parameter isDrained: its node is held still by the command that starts it, so that clients see a pause first.
    func begin(_ job: Job, isDrained: Bool = false) {
        job.hasStarted = true
        job.move(to: .running)
        if isDrained {
            job.move(to: .paused)
            job.move(to: .running)
        }
        // Without a command whoever begins it goes on first.
        guard CommandContext.current != nil else {
            Task { await self.run(job) }
            return
        }
        // The reply comes before the work, as the state changes come before the reply. Then at once: a job that is short
        // costs hardly more than the changes of threads.
        CommandContext.afterReply { Task.immediate { await self.run(job) } }
    }

    private func run(_ job: Job) async {
        do {
            try await job.checkpoint()
            try await job.driver.run(job)
            job.endProgress(isDone: true)
        } catch {
            job.endProgress(isDone: false)
            job.fail(ColdframeError(wrapping: error))
        }
        job.onCancel(nil)
        job.stopped()
        // Whoever brings the group down ends it.
        if job.group.isAborting { return }
        if job.failure != nil || (job.isCancelled && !job.driver.outlivesLateCancel) { return await abort(job.group) }
        job.move(to: .waiting)
        await succeed(job.group)
    }

    // MARK: Ending

    /// A member's work is done: when it is the last of its group, all go on to `pending`, and on from there unless one
    /// of them waits for `job-finalize`.
    private func succeed(_ group: JobGroup) async {
        guard group.members.allSatisfy({ $0.status == .waiting }) else { return }
        for member in group.members {
            member.move(to: .pending)
            events.pending(member)
        }
        if group.members.allSatisfy(\.autoFinalize) { await finalize(group) }
    }

    func finalize(_ group: JobGroup) async {
        group.isFinalizing = true
        defer { group.isFinalizing = false }
        for member in group.members {
            do {
                try await member.driver.prepare()
            } catch {
                member.fail(ColdframeError(wrapping: error))
                return await abort(group)
            }
        }
        for member in group.members {
            await member.driver.commit()
            await member.driver.clean()
            conclude(member)
        }
    }

    /// Brings a group down: those without an error of their own are cancelled, and one after the other, newest first, is
    /// ended when it has stopped.
    func abort(_ group: JobGroup) async {
        guard !group.isAborting else { return }
        group.isAborting = true
        for member in group.members where member.failure == nil { member.requestCancel() }
        for member in group.members {
            await member.untilStopped()
            member.fail(ColdframeError(.cancelled, "Operation canceled"))
            member.move(to: .aborting)
            await member.driver.abort()
            await member.driver.clean()
            conclude(member)
        }
    }

    private func conclude(_ job: Job) {
        events.ended(job)
        job.move(to: .concluded)
        // Nobody has seen a job that never started.
        if job.autoDismiss || !job.hasStarted { remove(job) }
        let waiters = idleWaiters
        idleWaiters = []
        for waiter in waiters { waiter.resume() }
    }

    func remove(_ job: Job) {
        job.move(to: .null)
        jobs.removeAll { $0 === job }
    }

    /// Refuses new jobs, cancels all and suspends until none works any more (the agent's end).
    public func cancelAll() async {
        isClosed = true
        for job in jobs where job.status != .concluded {
            // A job that concludes meanwhile refuses the verb, which is as good.
            try? await cancel(id: job.jobID)
        }
        while jobs.contains(where: { $0.status != .concluded }) {
            await withCheckedContinuation { idleWaiters.append($0) }
        }
    }
}

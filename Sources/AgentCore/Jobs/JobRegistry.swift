import ColdframeKit
import QAPI
import QMPWire

/// Holds all jobs, moves them through QEMU's states and answers the `job-*` verbs.
@AgentActor
public final class JobRegistry {
    /// Newest first, as `query-jobs` lists them.
    private var jobs: [Job] = []
    private let post: @Sendable @AgentActor (String, JSONObject) -> Void
    private var idleWaiters: [CheckedContinuation<Void, Never>] = []
    /// The agent is ending: no more jobs.
    private var isClosed = false

    /// `post` sends an event to all monitors.
    public init(post: @escaping @Sendable @AgentActor (_ event: String, _ data: JSONObject) -> Void) {
        self.post = post
    }

    // MARK: Life

    /// Makes a job and starts it: `created` and `running` are sent before this returns, its work begins afterwards.
    public func start(
        id: String?, driver: any JobDriver, autoFinalize: Bool = true, autoDismiss: Bool = false
    ) throws {
        let job = try create(
            id: id, driver: driver, group: JobGroup(), autoFinalize: autoFinalize, autoDismiss: autoDismiss)
        begin(job)
    }

    func create(
        id: String?, driver: any JobDriver, group: JobGroup, autoFinalize: Bool, autoDismiss: Bool
    ) throws -> Job {
        guard !isClosed else { throw ColdframeError(.busy, "The agent is ending") }
        guard let id else { throw ColdframeError(.invalidArgument, "An explicit job ID is required") }
        guard Identifier.isWellFormed(id) else { throw ColdframeError(.invalidArgument, "Invalid job ID '\(id)'") }
        guard !jobs.contains(where: { $0.jobID == id }) else {
            throw ColdframeError(.alreadyExists, "Job ID '\(id)' already in use")
        }
        let job = Job(
            id: id, driver: driver, group: group, autoFinalize: autoFinalize, autoDismiss: autoDismiss,
            postStatus: { [post] id, status in
                post("JOB_STATUS_CHANGE", ["id": .string(id), "status": .string(status.rawValue)])
            })
        jobs.insert(job, at: 0)
        job.move(to: .created)
        return job
    }

    func begin(_ job: Job) {
        job.move(to: .running)
        // The reply comes before the work, as the state changes come before the reply.
        CommandContext.afterReply { Task { await self.run(job) } }
    }

    private func run(_ job: Job) async {
        do {
            try await job.checkpoint()
            try await job.driver.run(job)
            job.onCancel(nil)
            job.completeProgress()
            job.move(to: .waiting)
            await succeed(job)
        } catch {
            job.onCancel(nil)
            job.fail(ColdframeError(wrapping: error))
            await abort(job.group)
        }
    }

    /// A member's work is done: when it is the last of its group, all go on to `pending`, and on from there unless one
    /// of them waits for `job-finalize`.
    private func succeed(_ job: Job) async {
        guard !job.group.isAborting else { return await end(job) }
        guard job.group.members.allSatisfy({ $0.status == .waiting }) else { return }
        for member in job.group.members { member.move(to: .pending) }
        if job.group.members.allSatisfy(\.autoFinalize) { await finalize(job.group) }
    }

    private func finalize(_ group: JobGroup) async {
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

    /// Brings a group down. Members that are still at work are cancelled; they come here again when they have stopped.
    private func abort(_ group: JobGroup) async {
        group.isAborting = true
        for member in group.members {
            switch member.status {
            case .waiting, .pending, .created:
                await end(member)
            case .running, .ready, .paused, .standby:
                if member.failure == nil { member.requestCancel() } else { await end(member) }
            case .undefined, .aborting, .concluded, .null:
                break
            }
        }
    }

    private func end(_ job: Job) async {
        job.fail(ColdframeError(.cancelled, "Operation canceled"))
        job.move(to: .aborting)
        await job.driver.abort()
        await job.driver.clean()
        conclude(job)
    }

    private func conclude(_ job: Job) {
        job.move(to: .concluded)
        if job.autoDismiss { remove(job) }
        let waiters = idleWaiters
        idleWaiters = []
        for waiter in waiters { waiter.resume() }
    }

    private func remove(_ job: Job) {
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

    // MARK: Verbs

    public var information: [JobInfo] { jobs.map(\.information) }

    public func pause(id: String) throws {
        let job = try find(id)
        try check(job, .pause)
        guard !job.isUserPaused else { throw ColdframeError(.invalidArgument, "Job is already paused") }
        job.requestPause()
    }

    public func resume(id: String) throws {
        let job = try find(id)
        // QEMU looks here first, so that this is its text in every state.
        guard job.isUserPaused else {
            throw ColdframeError(.invalidArgument, "Can't resume a job that was not paused")
        }
        try check(job, .resume)
        job.requestResume()
    }

    public func cancel(id: String) async throws {
        let job = try find(id)
        try check(job, .cancel)
        switch job.status {
        case .waiting, .pending: await abort(job.group)
        default: job.requestCancel()
        }
    }

    public func complete(id: String) async throws {
        let job = try find(id)
        try check(job, .complete)
        guard job.driver.canComplete, !job.isCancelled else {
            throw ColdframeError(.invalidArgument, "The active block job '\(id)' cannot be completed")
        }
        try await job.driver.complete()
    }

    public func finalize(id: String) async throws {
        let job = try find(id)
        try check(job, .finalize)
        await finalize(job.group)
    }

    public func dismiss(id: String) throws {
        let job = try find(id)
        try check(job, .dismiss)
        remove(job)
    }

    private func find(_ id: String) throws -> Job {
        guard let job = jobs.first(where: { $0.jobID == id }) else {
            throw ColdframeError(.notFound, "Job not found")
        }
        return job
    }

    private func check(_ job: Job, _ verb: JobVerb) throws {
        guard JobTable.accepts(verb, in: job.status), job.status != .pending || !job.group.isFinalizing else {
            throw ColdframeError(
                .invalidArgument,
                "Job '\(job.jobID)' in state '\(job.status.rawValue)' cannot accept command verb '\(verb.rawValue)'")
        }
    }
}

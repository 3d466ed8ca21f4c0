import ColdframeKit
import QAPI

/// What clients ask of jobs, with QEMU's checks in QEMU's order.
extension JobRegistry {
    public var information: [JobInfo] { jobs.map(\.information) }
    var blockInformation: [BlockJobInfo] { jobs.compactMap(\.blockInformation) }

    public func pause(id: String) throws { try pause(find(id)) }
    public func resume(id: String) throws { try resume(find(id)) }
    /// Always forced.
    public func cancel(id: String) async throws { try await cancel(find(id), isForced: true) }
    public func complete(id: String) async throws { try await complete(find(id)) }
    public func finalize(id: String) async throws { try await finalize(find(id)) }
    public func dismiss(id: String) throws { try dismiss(find(id)) }

    func find(_ id: String) throws -> Job {
        guard let job = jobs.first(where: { $0.jobID == id }) else {
            throw ColdframeError(.notFound, "Job not found")
        }
        return job
    }

    /// For the commands `block-job-*`, which know no other jobs.
    func findBlockJob(_ id: String) throws -> Job {
        guard let job = jobs.first(where: { $0.jobID == id && $0.driver.isBlockJob }) else {
            throw ColdframeError(.deviceNotActive, "Block job '\(id)' not found")
        }
        return job
    }

    func pause(_ job: Job) throws {
        try check(job, .pause)
        guard !job.isUserPaused else { throw ColdframeError(.invalidArgument, "Job is already paused") }
        job.requestPause()
    }

    func resume(_ job: Job) throws {
        // QEMU looks here first, so that this is its text in every state.
        guard job.isUserPaused else {
            throw ColdframeError(.invalidArgument, "Can't resume a job that was not paused")
        }
        try check(job, .resume)
        job.requestResume()
    }

    func cancel(_ job: Job, isForced: Bool) async throws {
        try check(job, .cancel)
        if !isForced, job.status == .ready || job.status == .standby, job.requestSoftEnd() { return }
        job.requestCancel()
        // One that is at work ends its group itself when it has stopped.
        if job.hasStopped || !job.hasStarted { await abort(job.group) }
    }

    func complete(_ job: Job) async throws {
        try check(job, .complete)
        guard job.driver.canComplete, !job.isCancelled, !job.endsSoftly else {
            throw ColdframeError(.invalidArgument, "The active block job '\(job.jobID)' cannot be completed")
        }
        try await job.driver.complete()
        job.wake()
    }

    func finalize(_ job: Job) async throws {
        try check(job, .finalize)
        await finalize(job.group)
    }

    func dismiss(_ job: Job) throws {
        try check(job, .dismiss)
        remove(job)
    }

    func setSpeed(_ job: Job, _ bytesPerSecond: Int64) throws {
        try check(job, .setSpeed)
        guard bytesPerSecond >= 0 else {
            throw ColdframeError(.invalidArgument, "Parameter 'speed' expects a non-negative value")
        }
        job.setSpeed(bytesPerSecond)
    }

    private func check(_ job: Job, _ verb: JobVerb) throws {
        guard JobTable.accepts(verb, in: job.status), job.status != .pending || !job.group.isFinalizing else {
            throw ColdframeError(
                .invalidArgument,
                "Job '\(job.jobID)' in state '\(job.status.rawValue)' cannot accept command verb '\(verb.rawValue)'")
        }
    }
}

import ColdframeKit
import QAPI
import QMPWire

/// Tells clients about jobs: `JOB_STATUS_CHANGE` of all, `BLOCK_JOB_*` of those that work on nodes.
@AgentActor
struct JobEvents {
    let post: @Sendable @AgentActor (_ event: String, _ data: JSONObject) -> Void

    func statusChanged(_ job: Job) {
        post("JOB_STATUS_CHANGE", ["id": .string(job.jobID), "status": .string(job.status.rawValue)])
    }

    func ready(_ job: Job) {
        if job.driver.isBlockJob { post("BLOCK_JOB_READY", progress(job)) }
    }

    /// Sent only where the job waits for its user.
    func pending(_ job: Job) {
        guard job.driver.isBlockJob, !job.autoFinalize else { return }
        post("BLOCK_JOB_PENDING", ["type": .string(job.driver.jobType), "id": .string(job.jobID)])
    }

    func failed(_ job: Job, isRead: Bool, action: JobErrorAction) {
        guard job.driver.isBlockJob else { return }
        post(
            "BLOCK_JOB_ERROR",
            [
                "device": .string(job.jobID), "operation": isRead ? "read" : "write",
                "action": .string(action.rawValue),
            ])
    }

    /// Comes before `concluded`, and only for jobs that were started.
    func ended(_ job: Job) {
        guard job.driver.isBlockJob, job.hasStarted else { return }
        var data = progress(job)
        if job.isCancelled { return post("BLOCK_JOB_CANCELLED", data) }
        if let failure = job.failure { data["error"] = .string(failure.message) }
        post("BLOCK_JOB_COMPLETED", data)
    }

    private func progress(_ job: Job) -> JSONObject {
        let progress = job.currentProgress
        return [
            "type": .string(job.driver.jobType), "device": .string(job.jobID),
            "len": .integer(Int64(clamping: progress.total)), "offset": .integer(Int64(clamping: progress.current)),
            "speed": .integer(job.speed),
        ]
    }
}

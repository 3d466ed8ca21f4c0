import ColdframeKit
import QAPI

extension Job {
    /// As `query-jobs` shows it.
    var information: JobInfo {
        let progress = currentProgress
        return JobInfo(
            id: jobID, type: JobType(rawValue: driver.jobType) ?? .create, status: status,
            currentProgress: Int64(clamping: progress.current), totalProgress: Int64(clamping: progress.total),
            error: failure?.message)
    }

    /// As `query-block-jobs` shows it; nil for a job on no node.
    var blockInformation: BlockJobInfo? {
        guard driver.isBlockJob else { return nil }
        let progress = currentProgress
        return BlockJobInfo(
            type: driver.jobType, device: jobID, len: Int64(clamping: progress.total),
            offset: Int64(clamping: progress.current), busy: isBusy,
            paused: isUserPaused || !hasStarted || driver.isHeldStill, speed: speed, ioStatus: ioStatus,
            ready: status == .ready || status == .standby, status: status, autoFinalize: autoFinalize,
            autoDismiss: autoDismiss, error: failure?.message)
    }
}

import ColdframeKit
import QAPI

/// Registers `query-block-jobs` and the `block-job-*` verbs.
@AgentActor
func registerBlockJobCommands(_ registry: any CommandRegistry, jobs: JobRegistry) {
    registry.register(QueryBlockJobsCommand.self) { _ in jobs.blockInformation }
    registry.register(BlockJobSetSpeedCommand.self) { arguments in
        try jobs.setSpeed(jobs.findBlockJob(arguments.device), arguments.speed)
        return QAPIEmpty()
    }
    registry.register(BlockJobCancelCommand.self) { arguments in
        let job = try jobs.findBlockJob(arguments.device)
        let isForced = arguments.force ?? false
        if job.isUserPaused, !isForced {
            throw ColdframeError(
                .busy, "The block job for device '\(arguments.device)' is currently paused")
        }
        try await jobs.cancel(job, isForced: isForced)
        return QAPIEmpty()
    }
    registry.register(BlockJobPauseCommand.self) { arguments in
        try jobs.pause(jobs.findBlockJob(arguments.device))
        return QAPIEmpty()
    }
    registry.register(BlockJobResumeCommand.self) { arguments in
        try jobs.resume(jobs.findBlockJob(arguments.device))
        return QAPIEmpty()
    }
    registry.register(BlockJobCompleteCommand.self) { arguments in
        try await jobs.complete(jobs.findBlockJob(arguments.device))
        return QAPIEmpty()
    }
    registry.register(BlockJobFinalizeCommand.self) { arguments in
        try await jobs.finalize(jobs.findBlockJob(arguments.id))
        return QAPIEmpty()
    }
    registry.register(BlockJobDismissCommand.self) { arguments in
        try jobs.dismiss(jobs.findBlockJob(arguments.id))
        return QAPIEmpty()
    }
}

extension JobErrorPolicy {
    /// - Parameter option: `report` where it is not given.
    init(_ option: BlockdevOnError?) {
        switch option {
        case .report, nil: self = .report
        case .ignore: self = .ignore
        case .enospc, .auto: self = .stopIfFull
        case .stop: self = .stop
        }
    }
}

import ColdframeKit
import QAPI

/// Registers `query-jobs` and the `job-*` verbs.
@AgentActor
func registerJobCommands(_ registry: any CommandRegistry, jobs: JobRegistry) {
    registry.register(QueryJobsCommand.self) { _ in jobs.information }
    registry.register(JobPauseCommand.self) { arguments in
        try jobs.pause(id: arguments.id)
        return QAPIEmpty()
    }
    registry.register(JobResumeCommand.self) { arguments in
        try jobs.resume(id: arguments.id)
        return QAPIEmpty()
    }
    registry.register(JobCancelCommand.self) { arguments in
        try await jobs.cancel(id: arguments.id)
        return QAPIEmpty()
    }
    registry.register(JobCompleteCommand.self) { arguments in
        try await jobs.complete(id: arguments.id)
        return QAPIEmpty()
    }
    registry.register(JobFinalizeCommand.self) { arguments in
        try await jobs.finalize(id: arguments.id)
        return QAPIEmpty()
    }
    registry.register(JobDismissCommand.self) { arguments in
        try jobs.dismiss(id: arguments.id)
        return QAPIEmpty()
    }
}

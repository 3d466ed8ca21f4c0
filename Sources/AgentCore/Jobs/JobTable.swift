import QAPI

/// What a job may do in each state: QEMU's two tables, and nothing else decides.
enum JobTable {
    /// The states to which a job in `status` may go. A job that is aborting may be told to abort again, silently.
    static func successors(of status: JobStatus) -> Set<JobStatus> {
        switch status {
        case .undefined: [.created]
        case .created: [.running, .aborting, .null]
        case .running: [.paused, .ready, .waiting, .aborting]
        case .paused: [.running]
        case .ready: [.standby, .waiting, .aborting]
        case .standby: [.ready]
        case .waiting: [.pending, .aborting]
        case .pending: [.aborting, .concluded]
        case .aborting: [.aborting, .concluded]
        case .concluded: [.null]
        case .null: []
        }
    }

    /// The states in which a verb is accepted.
    static func accepts(_ verb: JobVerb, in status: JobStatus) -> Bool {
        switch verb {
        case .cancel:
            [.created, .running, .paused, .ready, .standby, .waiting, .pending].contains(status)
        case .pause, .resume, .setSpeed:
            [.created, .running, .paused, .ready, .standby].contains(status)
        case .complete:
            [.ready, .standby].contains(status)
        case .finalize:
            status == .pending
        case .dismiss:
            status == .concluded
        }
    }
}

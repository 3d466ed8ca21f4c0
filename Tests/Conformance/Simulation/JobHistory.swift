import QAPI
import QMPWire

/// What a client has asked for by starting a job.
struct AskedJob: Sendable {
    let id: String
    let type: JobType
    var autoFinalize = true
    var autoDismiss = true
    /// What is to be done about errors of either side.
    var onRead = BlockdevOnError.report
    var onWrite = BlockdevOnError.report
    /// The transaction whose jobs conclude together.
    var group: Int?

    /// It works on nodes: the commands and events `block-job-*` know it.
    var isBlockJob: Bool { [.backup, .commit, .mirror, .stream].contains(type) }
}

/// One job as its events tell of it, each of which must be one that QEMU would send then.
struct JobHistory {
    enum Fate { case succeeded, failed, cancelled }

    let asked: AskedJob
    private(set) var status = JobStatus.undefined
    /// The states since the last command was sent, that of then first.
    private(set) var recentStatuses: [JobStatus] = [.undefined]
    /// Its user, or an I/O error, has it paused.
    private(set) var isPaused = false
    private(set) var recentPauses: Set<Bool> = [false]
    private(set) var hasRun = false
    private(set) var fate: Fate?
    /// What was asked of it. Told before the command is sent, and again when it was refused.
    var isCancelAsked = false
    var isForcedlyCancelled = false
    var isEndAsked = false
    var isDismissAsked = false
    private(set) var complaints: [String] = []
    private var hasEnded = false
    private var hasFailed = false
    /// The event that must come next.
    private var due: String?

    init(_ asked: AskedJob) { self.asked = asked }

    private mutating func complain(_ words: String) {
        complaints.append("job '\(asked.id)' (\(asked.type.rawValue), \(status.rawValue)) \(words)")
    }

    /// A command is about to be sent.
    mutating func beginCommand() {
        recentStatuses = [status]
        recentPauses = [isPaused]
    }

    mutating func pause(_ isPaused: Bool) {
        self.isPaused = isPaused
        recentPauses.insert(isPaused)
    }

    mutating func take(_ event: String, _ data: JSONObject) {
        if let due, due != event { complain("sends \(event), not \(due)") }
        due = nil
        guard event != "JOB_STATUS_CHANGE" else {
            return move(to: data["status"]?.stringValue.flatMap(JobStatus.init(rawValue:)) ?? .undefined)
        }
        guard asked.isBlockJob else { return complain("sends \(event) and is no block job") }
        if hasEnded { complain("sends \(event) behind its last event") }
        switch event {
        case "BLOCK_JOB_READY": checkNumbers(event, data)
        case "BLOCK_JOB_PENDING":
            if data["type"]?.stringValue != asked.type.rawValue { complain("is pending as \(data)") }
        case "BLOCK_JOB_ERROR": fail(data)
        case "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED": end(event, data)
        default: complain("sends \(event)")
        }
    }

    // MARK: States

    private mutating func move(to next: JobStatus) {
        // A job that aborts again says nothing.
        if next == status || !QEMUJobTables.leads(status, to: next) { complain("goes to \(next.rawValue)") }
        let last = status
        (status, hasRun) = (next, hasRun || next == .running)
        recentStatuses.append(next)
        if last == .paused || last == .standby { pause(false) }
        switch next {
        case .ready: becomeReady(from: last)
        case .waiting: workEnded(in: last)
        case .pending: if asked.isBlockJob, !asked.autoFinalize { due = "BLOCK_JOB_PENDING" }
        case .aborting:
            hasFailed = true
            if !asked.isBlockJob { fate = isCancelAsked ? .cancelled : .failed }
        case .concluded: conclude(from: last)
        case .null:
            if last == .concluded, hasRun, !asked.autoDismiss, !isDismissAsked { complain("is gone undismissed") }
        default: break
        }
    }

    private mutating func becomeReady(from last: JobStatus) {
        if asked.type != .mirror, asked.type != .commit { complain("is never ready") }
        if last == .running { due = "BLOCK_JOB_READY" }
    }

    private mutating func workEnded(in last: JobStatus) {
        if hasFailed { complain("has reported an error and ends well") }
        if last == .running, asked.type == .mirror { complain("was never ready") }
        if last == .ready, !isEndAsked { complain("ends unasked") }
        // Of the others what is whole in spite of a late cancel is told as such.
        if isForcedlyCancelled, asked.isBlockJob { complain("was cancelled and ends well") }
    }

    private mutating func conclude(from last: JobStatus) {
        if asked.isBlockJob, hasRun != hasEnded { complain(hasRun ? "sends no last event" : "ends and never began") }
        if fate == nil, hasRun { fate = .succeeded }
        if fate == .succeeded, last != .pending { complain("succeeds out of \(last.rawValue)") }
    }

    // MARK: Events of block jobs

    /// An I/O error. What is done about it must be what was asked for.
    private mutating func fail(_ data: JSONObject) {
        if status != .running, status != .ready { complain("meets an error") }
        let policy = data["operation"]?.stringValue == "read" ? asked.onRead : asked.onWrite
        let action = data["action"]?.stringValue
        let isLegal =
            switch policy {
            case .report, .ignore, .stop: action == policy.rawValue
            case .enospc, .auto: action == "stop" || action == "report"
            }
        if !isLegal { complain("does '\(action ?? "nothing")' about an error, not '\(policy.rawValue)'") }
        if action == "stop" { pause(true) }
        if action == "report" { hasFailed = true }
    }

    private mutating func end(_ event: String, _ data: JSONObject) {
        hasEnded = true
        checkNumbers(event, data)
        let error = data["error"]?.stringValue
        if event == "BLOCK_JOB_CANCELLED" {
            fate = .cancelled
            pause(false)
            // Of a group one brings the others down.
            if !isCancelAsked, asked.group == nil { complain("is cancelled unasked") }
        } else {
            fate = error == nil ? .succeeded : .failed
        }
        if error == nil, fate != .cancelled, isForcedlyCancelled { complain("was cancelled and succeeds") }
        if status != (fate == .succeeded ? .pending : .aborting) {
            complain("sends \(event), error: \(error ?? "none")")
        }
    }

    private mutating func checkNumbers(_ event: String, _ data: JSONObject) {
        let (length, offset) = (data["len"]?.intValue ?? -1, data["offset"]?.intValue ?? -1)
        if offset < 0 || offset > length || (data["speed"]?.intValue ?? -1) < 0 {
            complain("sends \(event) with \(data)")
        }
        if data["type"]?.stringValue != asked.type.rawValue { complain("sends \(event) as \(data)") }
    }
}

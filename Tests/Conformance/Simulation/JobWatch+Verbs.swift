import QAPI
import QMPWire

/// A command that asks something of one job.
struct AskedVerb {
    let verb: JobVerb
    let id: String
    /// Of the family `block-job-*`, which knows other jobs and has an error of its own.
    let isBlockCommand: Bool
    let isForced: Bool
    let speed: Int64

    /// nil for a command that is none.
    init?(_ command: String, _ arguments: JSONObject) {
        isBlockCommand = command.hasPrefix("block-job-")
        guard isBlockCommand || command.hasPrefix("job-"),
            let verb = JobVerb(rawValue: String(command.dropFirst(isBlockCommand ? 10 : 4)))
        else { return nil }
        self.verb = verb
        id = (arguments["id"] ?? arguments["device"])?.stringValue ?? ""
        speed = arguments["speed"]?.intValue ?? 0
        isForced = verb == .cancel && (!isBlockCommand || arguments["force"]?.boolValue == true)
    }
}

/// Whether a verb was accepted where QEMU accepts it, and refused with its words elsewhere. It was looked at in one of the
/// states that the job has been in since the command was sent.
extension JobWatch {
    /// It is about to be sent.
    mutating func begin(_ verb: AskedVerb) {
        begin()
        change(verb.id) { history in
            switch verb.verb {
            case .cancel:
                history.isCancelAsked = true
                history.isEndAsked = history.isEndAsked || !verb.isForced
            case .complete: history.isEndAsked = true
            case .dismiss: history.isDismissAsked = true
            default: break
            }
        }
    }

    /// - Parameter before: what was known when it was sent.
    mutating func end(_ verb: AskedVerb, refusal: QMPError?, before: JobHistory?) {
        if let refusal {
            if !isLegal(refusal, of: verb, before: before) {
                let statuses = histories[verb.id]?.recentStatuses.map(\.rawValue) ?? []
                complain("'\(verb.verb.rawValue)' of '\(verb.id)', which was \(statuses): \(refusal)")
            }
            change(verb.id) { history in
                guard let before else { return }
                history.isCancelAsked = before.isCancelAsked
                history.isEndAsked = before.isEndAsked
                history.isDismissAsked = before.isDismissAsked
            }
        } else {
            accept(verb)
        }
    }

    private mutating func accept(_ verb: AskedVerb) {
        guard let history = histories[verb.id], history.recentStatuses.contains(where: { accepts(verb, in: $0) }) else {
            let statuses = histories[verb.id]?.recentStatuses.map(\.rawValue) ?? []
            return complain("'\(verb.verb.rawValue)' of '\(verb.id)', which was \(statuses), is accepted")
        }
        if verb.speed < 0 { complain("speed \(verb.speed) of '\(verb.id)' is accepted") }
        switch verb.verb {
        case .pause, .resume:
            let isPausing = verb.verb == .pause
            if !history.recentPauses.contains(!isPausing) {
                complain("'\(verb.id)' is \(isPausing ? "paused" : "resumed") twice")
            }
            change(verb.id) { $0.pause(isPausing) }
        case .cancel:
            // Whether it was soft is known where it cannot have been otherwise.
            let maySoften = !verb.isForced && history.recentStatuses.contains { [.ready, .standby].contains($0) }
            change(verb.id) { history in
                if !maySoften { history.isForcedlyCancelled = true }
                history.pause(false)
            }
        default: break
        }
    }

    private func accepts(_ verb: AskedVerb, in status: JobStatus) -> Bool {
        guard QEMUJobTables.accepts(verb.verb, in: status), let asked = histories[verb.id]?.asked else { return false }
        return asked.isBlockJob || !verb.isBlockCommand
    }

    private func isLegal(_ refusal: QMPError, of verb: AskedVerb, before: JobHistory?) -> Bool {
        let unknown =
            verb.isBlockCommand
            ? QMPError(.deviceNotActive, "Block job '\(verb.id)' not found") : QMPError(.genericError, "Job not found")
        guard let history = histories[verb.id] else { return refusal == unknown }
        if refusal == unknown {
            return history.recentStatuses.contains(.null) || (verb.isBlockCommand && !history.asked.isBlockJob)
        }
        guard refusal.errorClass == .genericError else { return false }
        let isAccepting = history.recentStatuses.contains { accepts(verb, in: $0) }
        switch refusal.description {
        case "Can't resume a job that was not paused":
            return verb.verb == .resume && history.recentPauses.contains(false)
        case "Job is already paused":
            return verb.verb == .pause && history.recentPauses.contains(true) && isAccepting
        case "The block job for device '\(verb.id)' is currently paused":
            return verb.verb == .cancel && !verb.isForced && history.recentPauses.contains(true)
        case "The active block job '\(verb.id)' cannot be completed":
            let isEnding = before.map { $0.isEndAsked || $0.isCancelAsked } ?? false
            return verb.verb == .complete && isAccepting && isEnding
        case "Parameter 'speed' expects a non-negative value":
            return verb.verb == .setSpeed && verb.speed < 0 && isAccepting
        default:
            return history.recentStatuses.contains { status in
                let words =
                    "Job '\(verb.id)' in state '\(status.rawValue)' cannot accept command verb '\(verb.verb.rawValue)'"
                // In QEMU nothing comes between a job that waits for nobody and its end.
                let isHurrying = status == .pending && !waitsForFinalize(history.asked)
                return refusal.description == words && (isHurrying || !accepts(verb, in: status))
            }
        }
    }
}

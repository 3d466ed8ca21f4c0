import LinuxSystem
import QMPWire

/// Starts a job, shows its progress, and waits for its end. Ctrl-C asks the job to cancel; a second one stops waiting.
struct JobWaiter {
    let session: Session
    let interrupts: InterruptFlag
    let title: String

    /// Returns the data of `resultEvent`, if the job sent it.
    @discardableResult
    func run(_ command: String, _ arguments: JSONObject, resultEvent: String? = nil) throws -> JSONObject? {
        let id = "cli-" + UUIDText.generate()
        var progress = ProgressLine(title: title)
        defer { progress.clear() }
        var arguments = arguments
        arguments["job-id"] = .string(id)
        try session.execute(command, arguments)

        var result: JSONObject?
        var askedToCancel = false
        while true {
            guard let job = try state(of: id) else {
                throw CommandFailure("\(title): the job was dismissed by somebody else; see 'coldframe snapshot list'")
            }
            for event in session.takeEvents() where event.data["job-id"]?.stringValue == id {
                result = event.name == resultEvent ? event.data : result
            }
            if job["status"]?.stringValue == "concluded" {
                try session.execute("job-dismiss", ["id": .string(id)])
                if let error = job["error"]?.stringValue { throw CommandFailure("\(title): \(error)") }
                return result
            }
            progress.update(
                current: job["current-progress"]?.uint64Value ?? 0, total: job["total-progress"]?.uint64Value ?? 0)
            switch interrupts.count {
            case 0: break
            case 1 where !askedToCancel:
                askedToCancel = true
                progress.clear()
                Terminal.writeError("Cancelling; press Ctrl-C again to leave it alone\n")
                // A job that is ending refuses the verb; its end is seen in the next round.
                _ = try? session.execute("job-cancel", ["id": .string(id)])
            case 1: break
            default:
                throw CommandFailure("\(title): still at work as job '\(id)'; see 'coldframe jobs'")
            }
            SystemThread.sleep(milliseconds: 20)
        }
    }

    private func state(of id: String) throws -> JSONValue? {
        try session.execute("query-jobs").arrayValue?.first { $0["id"]?.stringValue == id }
    }
}

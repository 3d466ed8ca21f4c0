import QAPI
import QMPWire

/// What a client of the agent sees of its jobs, held against QEMU's tables: events, answers of the verbs, and what the queries
/// say. It hears of each command before it is sent, and takes all messages in their order.
struct JobWatch {
    private(set) var histories: [String: JobHistory] = [:]
    /// By age, oldest first.
    private var order: [String] = []
    private var ownComplaints: [String] = []

    var complaints: [String] { ownComplaints + order.flatMap { histories[$0]?.complaints ?? [] } }

    /// Those that a client could ask something of.
    var current: [JobHistory] { order.compactMap { histories[$0] }.filter { $0.status != .null } }

    /// How many jobs of each type have ended how, for those who want to know whether much happens.
    var fates: [String: Int] {
        let fates = histories.values.compactMap { history in
            history.fate.map { "\(history.asked.type.rawValue) \($0)" }
        }
        return Dictionary(fates.map { ($0, 1) }, uniquingKeysWith: +)
    }

    mutating func complain(_ words: String) { ownComplaints.append(words) }

    mutating func change(_ id: String, _ body: (inout JobHistory) -> Void) {
        if histories[id] != nil { body(&histories[id]!) }
    }

    // MARK: Commands that start jobs

    /// A command is about to be sent, which may start jobs.
    mutating func begin(starting asked: [AskedJob] = []) {
        for id in order { histories[id]?.beginCommand() }
        for job in asked { histories[job.id] = JobHistory(job) }
    }

    /// It was answered: all of its jobs have begun, or none.
    mutating func end(starting asked: [AskedJob], isDone: Bool) {
        for job in asked {
            guard let history = histories[job.id] else { continue }
            if isDone, !history.hasRun { complain("job '\(job.id)' has not begun") }
            if !isDone, history.hasRun || (history.status != .undefined && history.status != .null) {
                complain("job '\(job.id)' is \(history.status.rawValue), and its command has failed")
            }
            if history.status == .undefined { histories[job.id] = nil }
        }
    }

    // MARK: Events

    mutating func take(_ event: JSONObject) {
        let name = event["event"]?.stringValue ?? ""
        guard name == "JOB_STATUS_CHANGE" || name.hasPrefix("BLOCK_JOB_") else {
            if name == "BLOCK_IMAGE_CORRUPTED" { complain("an image is said to be damaged: \(event)") }
            return
        }
        let data = event["data"]?.objectValue ?? [:]
        let id = (data["id"] ?? data["device"])?.stringValue ?? ""
        guard var history = histories[id] else {
            return complain("an event of a job that nobody has started: \(event)")
        }
        if history.status == .undefined { order.append(id) }
        history.take(name, data)
        histories[id] = history
        if history.status == .pending, let group = history.asked.group { checkAllWait(group) }
    }

    /// Nobody of a group goes on before all have done their work.
    private mutating func checkAllWait(_ group: Int) {
        for member in members(of: group) where ![.waiting, .pending, .concluded, .null].contains(member.status) {
            complain("job '\(member.asked.id)' is \(member.status.rawValue), and its group goes on")
        }
    }

    private func members(of group: Int) -> [JobHistory] {
        histories.values.filter { $0.asked.group == group && $0.hasRun }
    }

    /// Of its group, itself alone if it has none.
    func waitsForFinalize(_ job: AskedJob) -> Bool {
        guard let group = job.group else { return !job.autoFinalize }
        return members(of: group).contains { !$0.asked.autoFinalize }
    }

    // MARK: Queries

    /// The answer of `query-jobs`: right behind it no event was missed, so it says what the events have said.
    mutating func compare(jobs: JSONValue) {
        let (jobs, expected) = (jobs.arrayValue ?? [], Array(current.reversed()))
        guard jobs.map({ $0["id"]?.stringValue }) == expected.map(\.asked.id) else {
            return complain("query-jobs lists \(jobs), events tell of \(expected.map(\.asked.id))")
        }
        for (job, history) in zip(jobs, expected) { compare(job, history) }
    }

    /// The answer of `query-block-jobs`.
    mutating func compare(blockJobs: JSONValue) {
        let (jobs, expected) = (blockJobs.arrayValue ?? [], current.reversed().filter(\.asked.isBlockJob))
        guard jobs.map({ $0["device"]?.stringValue }) == expected.map(\.asked.id) else {
            return complain("query-block-jobs lists \(jobs), events tell of \(expected.map(\.asked.id))")
        }
        for (job, history) in zip(jobs, expected) { compare(blockJob: job, history) }
    }

    private mutating func compare(_ job: JSONValue, _ history: JobHistory) {
        let isConcluded = history.status == .concluded
        var isEqual = job["status"]?.stringValue == history.status.rawValue
        isEqual = isEqual && job["type"]?.stringValue == history.asked.type.rawValue
        isEqual = isEqual && job["current-progress"]?.intValue ?? 1 <= job["total-progress"]?.intValue ?? 0
        if isConcluded { isEqual = isEqual && (job["error"] == nil) == (history.fate == .succeeded) }
        let isKept = !history.asked.autoDismiss || !history.asked.isBlockJob
        if !isEqual || (isConcluded && !isKept) {
            complain(
                "query-jobs says \(job); events: \(history.status.rawValue), \(history.fate.map { "\($0)" } ?? "")")
        }
    }

    private mutating func compare(blockJob job: JSONValue, _ history: JobHistory) {
        var isEqual = job["status"]?.stringValue == history.status.rawValue
        isEqual = isEqual && job["ready"]?.boolValue == [.ready, .standby].contains(history.status)
        // Who is brought down is resumed first, and no event says so.
        let mayBeResumed = history.isCancelAsked || history.asked.group != nil
        // What mirrors, as a commit of the topmost image does, holds its disk still when it comes to its end.
        let mayHoldStill = [.mirror, .commit].contains(history.asked.type)
        let mayBeHeldStill =
            mayHoldStill && [.ready, .waiting, .pending, .aborting, .concluded].contains(history.status)
        let isPaused = job["paused"]?.boolValue ?? false
        isEqual = isEqual && (isPaused == history.isPaused || isPaused && mayBeHeldStill || mayBeResumed)
        isEqual = isEqual && job["auto-finalize"]?.boolValue == history.asked.autoFinalize
        isEqual = isEqual && job["auto-dismiss"]?.boolValue == history.asked.autoDismiss
        isEqual = isEqual && job["offset"]?.intValue ?? 1 <= job["len"]?.intValue ?? 0
        if !isEqual { complain("query-block-jobs says \(job); events: \(history)") }
    }

    // MARK: The end

    /// The agent cancels whatever is left.
    mutating func cancelAll() {
        for id in order { histories[id]?.isCancelAsked = true }
    }

    /// All are gone; those of a group have ended alike.
    mutating func finish() {
        for job in current { complain("job '\(job.asked.id)' is left, \(job.status.rawValue)") }
        let groups = Dictionary(grouping: histories.values.filter { $0.hasRun && $0.asked.group != nil }) {
            $0.asked.group
        }
        for members in groups.values where Set(members.map { $0.fate == .succeeded }).count > 1 {
            complain("of one group: \(members.map { "'\($0.asked.id)' has \($0.fate.map { "\($0)" } ?? "no end")" })")
        }
    }
}

import QAPI
import QMPWire
import Testing

/// The watch of the simulation itself: it complains about what QEMU would not do.
@Suite("Watch of the simulation")
struct JobWatchTests {
    /// Lower case is a state, capitals are an event `BLOCK_JOB_…`; `!` behind an event gives it an error, `?` is a verb before it.
    private func complaints(_ script: String, _ asked: AskedJob) -> [String] {
        var watch = JobWatch()
        watch.begin(starting: [asked])
        for word in script.split(separator: " ") {
            if word.hasSuffix("?") {
                let command = String(word.dropLast())
                guard let verb = AskedVerb(command, ["id": .string(asked.id)]) else { return ["no verb: \(command)"] }
                let before = watch.histories[asked.id]
                watch.begin(verb)
                watch.end(verb, refusal: nil, before: before)
            } else {
                watch.take(event(word, asked))
            }
        }
        return watch.complaints
    }

    private func event(_ word: Substring, _ asked: AskedJob) -> JSONObject {
        let id = JSONValue.string(asked.id)
        let name = word.filter { $0 != "!" }
        guard name.first?.isUppercase == true else {
            return ["event": "JOB_STATUS_CHANGE", "data": ["id": id, "status": .string(name)]]
        }
        var data: JSONObject = [
            "device": id, "type": .string(asked.type.rawValue), "len": 1, "offset": 1, "speed": 0,
            "operation": "read", "action": "report",
        ]
        if word.hasSuffix("!") { data["error"] = "Input/output error" }
        return ["event": .string("BLOCK_JOB_" + name), "data": .object(data)]
    }

    @Test(
        "What QEMU does is in order",
        arguments: [
            (JobType.stream, "created running waiting pending COMPLETED concluded null"),
            (.backup, "created running paused running waiting pending COMPLETED concluded null"),
            (.mirror, "created running ready READY job-complete? waiting pending COMPLETED concluded null"),
            (
                .mirror,
                "created running ready READY job-pause? standby job-resume? ready job-cancel? aborting CANCELLED concluded"
            ),
            (.commit, "created running ERROR aborting COMPLETED! concluded null"),
            (.backup, "created aborting concluded null"),
            (.stream, "created null"),
        ])
    func inOrder(_ type: JobType, _ script: String) {
        #expect(complaints(script, AskedJob(id: "j", type: type)) == [])
    }

    @Test(
        "What QEMU does not do is not",
        arguments: [
            (JobType.stream, "running"),
            (.stream, "created running paused aborting"),
            (.stream, "created running waiting concluded"),
            (.stream, "created running waiting pending concluded"),
            (.stream, "created running waiting pending COMPLETED COMPLETED"),
            (.stream, "created running waiting pending PENDING COMPLETED concluded concluded"),
            (.stream, "created running waiting COMPLETED"),
            (.stream, "created running waiting pending COMPLETED!"),
            (.stream, "created running ready READY"),
            (.stream, "created running aborting CANCELLED"),
            (.stream, "created running ERROR waiting"),
            (.stream, "created running job-cancel? waiting"),
            (.stream, "created running job-complete?"),
            (.stream, "created running job-dismiss?"),
            (.stream, "created running job-pause? job-pause?"),
            (.stream, "created aborting COMPLETED! concluded"),
            (.mirror, "created running ready job-complete?"),
            (.mirror, "created running ready waiting"),
            (.mirror, "created running ready READY waiting"),
            (.mirror, "created running waiting"),
            (.create, "created running waiting pending COMPLETED"),
        ])
    func outOfOrder(_ type: JobType, _ script: String) {
        #expect(complaints(script + " null", AskedJob(id: "j", type: type)) != [])
    }

    @Test("A job that its user dismisses does not go by itself")
    func undismissed() {
        var asked = AskedJob(id: "j", type: .stream)
        asked.autoDismiss = false
        let script = "created running waiting pending COMPLETED concluded"
        #expect(complaints(script + " null", asked) != [])
        #expect(complaints(script + " job-dismiss? null", asked) == [])
    }

    @Test("What the queries say must be what was told")
    func queries() {
        var watch = JobWatch()
        watch.begin(starting: [AskedJob(id: "j", type: .stream)])
        for status in ["created", "running"] {
            watch.take(["event": "JOB_STATUS_CHANGE", "data": ["id": "j", "status": .string(status)]])
        }
        let job: JSONObject = [
            "id": "j", "type": "stream", "status": "running", "current-progress": 0, "total-progress": 1,
        ]
        watch.compare(jobs: [.object(job)])
        #expect(watch.complaints == [])
        var other = job
        other["status"] = "paused"
        for wrong: JSONValue in [[], [.object(other)], [.object(job), .object(job)]] {
            var watch = watch
            watch.compare(jobs: wrong)
            #expect(watch.complaints.count == 1)
        }
    }
}

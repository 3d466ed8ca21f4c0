import ArgumentParser
import QMPWire

/// `coldframe jobs NAME`
struct Jobs: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List an agent's jobs.")
    @Argument(help: "Name of the agent.") var name: String
    @Flag(help: "Print as JSON.") var json = false

    func run() throws {
        let value = try Session(agent: name).execute("query-jobs")
        if json { return Terminal.write(json: value) }
        let jobs = value.arrayValue ?? []
        guard !jobs.isEmpty else { return Terminal.write("No jobs\n") }
        var table = Table("ID", "TYPE", "STATUS", "PROGRESS", "ERROR")
        for job in jobs {
            let current = job["current-progress"]?.uint64Value ?? 0
            let total = job["total-progress"]?.uint64Value ?? 0
            table.add(
                job["id"]?.stringValue ?? "?", job["type"]?.stringValue ?? "?", job["status"]?.stringValue ?? "?",
                "\(Units.bytes(current)) of \(Units.bytes(total))", job["error"]?.stringValue ?? "")
        }
        Terminal.write(table.text + "\n")
    }
}

/// `coldframe job VERB NAME ID`
struct Job: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Pause, resume, cancel, complete, finalize or dismiss a job.",
        subcommands: [Pause.self, Resume.self, Cancel.self, Complete.self, Finalize.self, Dismiss.self])

    struct Target: ParsableArguments {
        @Argument(help: "Name of the agent.") var name: String
        @Argument(help: "Id of the job.") var id: String

        @Flag(help: "Print the job as it is afterwards, as JSON.") var json = false

        /// Silent when it has worked, unless JSON is asked for: then the job, or null when it is gone.
        func send(_ verb: String) throws {
            let session = try Session(agent: name)
            try session.execute("job-\(verb)", ["id": .string(id)])
            guard json else { return }
            let jobs = try session.execute("query-jobs").arrayValue ?? []
            Terminal.write(json: jobs.first { $0["id"]?.stringValue == id } ?? .null)
        }
    }

    struct Pause: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Pause a job.")
        @OptionGroup var target: Target
        func run() throws { try target.send("pause") }
    }
    struct Resume: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Let a paused job go on.")
        @OptionGroup var target: Target
        func run() throws { try target.send("resume") }
    }
    struct Cancel: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Cancel a job; it undoes what it did.")
        @OptionGroup var target: Target
        func run() throws { try target.send("cancel") }
    }
    struct Complete: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Complete a job that is ready.")
        @OptionGroup var target: Target
        func run() throws { try target.send("complete") }
    }
    struct Finalize: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Finalize a job that is pending.")
        @OptionGroup var target: Target
        func run() throws { try target.send("finalize") }
    }
    struct Dismiss: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Forget a job that has concluded.")
        @OptionGroup var target: Target
        func run() throws { try target.send("dismiss") }
    }
}

import ArgumentParser
import QMPWire

/// `coldframe snapshot …`
struct Snapshot: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make, list, load and delete snapshots.",
        subcommands: [Save.self, Load.self, Delete.self, List.self, Show.self, Check.self])
}

extension Snapshot {
    struct Save: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Save the guest (or, without a guest, the disks) under a tag.",
            discussion: "While it waits, Ctrl-C asks the job to cancel: no trace of the tag is left then.")
        @Argument(help: "Name of the agent.") var name: String
        @Argument(help: "Tag of the new snapshot.") var tag: String
        @Option(help: "auto, live, precopy, paused or disks.") var mode: String = "auto"
        @Option(help: "Nodes to include, separated by commas; default: the guest's disks, or all that can.")
        var devices: String?
        @Option(help: "Node that takes the guest's state; default: the first device.") var vmstate: String?
        @Flag(help: "Print the result as JSON.") var json = false

        func run() throws {
            let interrupts = try InterruptFlag()
            let session = try Session(agent: name)
            let devices = try session.devices(devices)
            var arguments: JSONObject = [
                "tag": .string(tag), "mode": .string(mode), "devices": .array(devices.map { .string($0) }),
            ]
            if mode != "disks", let node = vmstate ?? devices.first { arguments["vmstate"] = .string(node) }
            let job = JobWaiter(session: session, interrupts: interrupts, title: "save '\(tag)'")
            let event = try job.run("snapshot-save", arguments, resultEvent: "SNAPSHOT_SAVED")
            if json { return Terminal.write(json: .object(event ?? [:])) }
            Terminal.write(Self.summary(tag, event) + "\n")
        }

        private static func summary(_ tag: String, _ event: JSONObject?) -> String {
            var text = "Saved '\(tag)'"
            if let way = event?["way"]?.stringValue, way != "disks" {
                text += " (\(way))"
                if let pause = event?["pause-ns"]?.uint64Value {
                    text += ": the guest was paused for \(Units.duration(nanoseconds: pause))"
                }
                if let bytes = event?["bytes"]?.uint64Value { text += ", \(Units.bytes(bytes)) of state" }
            } else {
                text += ": disks only"
            }
            if let reason = event?["reason"]?.stringValue { text += "\nNot \(reason)" }
            return text
        }
    }

    struct Load: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Bring guest and disks back to a snapshot.")
        @Argument(help: "Name of the agent.") var name: String
        @Argument(help: "Tag of the snapshot.") var tag: String
        @Option(help: "in-place: into the running process; replace: into a new one, which then takes its place.")
        var way: String = "auto"
        @Flag(help: "Print the result as JSON.") var json = false

        func run() throws {
            let interrupts = try InterruptFlag()
            let session = try Session(agent: name)
            let set = try session.snapshotSet(tag)
            var arguments: JSONObject = [
                "tag": .string(tag), "devices": .array(set.nodeNames.map { .string($0) }),
                "way": .string(way),
            ]
            if let node = set.stateNodeName {
                arguments["vmstate"] = .string(node)
            } else if (try? session.execute("query-guest")) != nil {
                throw CommandFailure(
                    "Snapshot '\(tag)' holds disks only, which cannot go back under a running guest: end the guest "
                        + "first with 'coldframe qmp \(name) guest-del'")
            }
            let job = JobWaiter(session: session, interrupts: interrupts, title: "load '\(tag)'")
            try job.run("snapshot-load", arguments)
            Terminal.write(json ? "{\"tag\": \(JSONWriter.string(.string(tag)))}\n" : "Loaded '\(tag)'\n")
        }
    }

    struct Delete: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Delete a snapshot from all its disks.")
        @Argument(help: "Name of the agent.") var name: String
        @Argument(help: "Tag of the snapshot.") var tag: String
        @Flag(help: "Print the result as JSON.") var json = false

        func run() throws {
            let interrupts = try InterruptFlag()
            let session = try Session(agent: name)
            let set = try session.snapshotSet(tag)
            let job = JobWaiter(session: session, interrupts: interrupts, title: "delete '\(tag)'")
            try job.run(
                "snapshot-delete", ["tag": .string(tag), "devices": .array(set.nodeNames.map { .string($0) })])
            Terminal.write(json ? "{\"tag\": \(JSONWriter.string(.string(tag)))}\n" : "Deleted '\(tag)'\n")
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the snapshots of an agent.")
        @Argument(help: "Name of the agent.") var name: String
        @Flag(help: "Print as JSON.") var json = false

        func run() throws {
            let session = try Session(agent: name)
            let value = try session.execute("query-snapshots")
            if json { return Terminal.write(json: value) }
            let sets = (value.arrayValue ?? []).compactMap(SnapshotSetView.init)
            guard !sets.isEmpty else { return Terminal.write("No snapshots\n") }
            var table = Table("TAG", "DATE (UTC)", "STATE", "NODES", "NOTES")
            for set in sets {
                table.add(
                    set.tag, Units.date(secondsSinceEpoch: set.dateSeconds),
                    set.stateByteCount == 0 ? "-" : Units.bytes(set.stateByteCount),
                    set.nodeNames.joined(separator: ","), set.notes)
            }
            Terminal.write(table.text + "\n")
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one snapshot.")
        @Argument(help: "Name of the agent.") var name: String
        @Argument(help: "Tag of the snapshot.") var tag: String
        @Flag(help: "Print as JSON.") var json = false

        func run() throws {
            let session = try Session(agent: name)
            let set = try session.snapshotSet(tag)
            if json { return Terminal.write(json: set.json) }
            var lines = [
                "tag      \(set.tag)",
                "date     \(Units.date(secondsSinceEpoch: set.dateSeconds)) UTC",
                "uuid     \(set.uuid ?? "-")",
                "state    \(set.stateByteCount == 0 ? "none, disks only" : Units.bytes(set.stateByteCount))",
            ]
            if !set.notes.isEmpty { lines.append("notes    \(set.notes)") }
            for node in set.nodes {
                lines.append("node     \(node.name)  id \(node.id)  \(Units.bytes(node.diskByteCount))")
            }
            if !set.holders.isEmpty { lines.append("open in  \(set.holders.joined(separator: ", "))") }
            Terminal.write(lines.joined(separator: "\n") + "\n")
        }
    }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Check that a snapshot is whole and its state undamaged, without touching anything.")
        @Argument(help: "Name of the agent.") var name: String
        @Argument(help: "Tag of the snapshot.") var tag: String
        @Flag(help: "Print as JSON.") var json = false

        func run() throws {
            let session = try Session(agent: name)
            let value = try session.execute("snapshot-check", ["tag": .string(tag)])
            let problems = (value["problems"]?.arrayValue ?? []).compactMap(\.stringValue)
            if json {
                Terminal.write(json: value)
            } else {
                Terminal.write(
                    problems.isEmpty
                        ? "'\(tag)' is whole\n" : problems.map { "'\(tag)': \($0)\n" }.joined())
            }
            if !problems.isEmpty { throw ExitCode.failure }
        }
    }
}

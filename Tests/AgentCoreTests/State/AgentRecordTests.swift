import LinuxSystem
import QMPWire
import Testing

@testable import AgentCore

@Suite("The agent's record")
struct AgentRecordTests {
    private func item(_ command: String, _ arguments: JSONObject, configured: Bool = false) throws -> RecordedItem {
        try #require(RecordedItem(command: command, arguments: arguments, isConfigured: configured))
    }

    private func node(_ name: String, configured: Bool = false, file: String = "/a") throws -> RecordedItem {
        try item(
            "blockdev-add", ["driver": "raw", "node-name": .string(name), "file": ["filename": .string(file)]],
            configured: configured)
    }

    private func removal(_ command: String, _ arguments: JSONObject) throws -> RecordedRemoval {
        try #require(RecordedRemoval(command: command, arguments: arguments))
    }

    @Test("What is written is read")
    func roundTrip() throws {
        var record = AgentRecord()
        record.bootID = "b"
        record.add(try node("a", configured: true))
        record.add(try node("ü", file: "rel/ative"))
        record.remove(try removal("blockdev-del", ["node-name": "a"]))
        #expect(try AgentRecord(text: record.text) == record)
        #expect(record.items.map(\.name) == ["ü"])
        #expect(record.removed.map(\.name) == ["a"])
    }

    @Test("Every changed byte is noticed")
    func damage() throws {
        var record = AgentRecord()
        record.add(try node("a"))
        let text = record.text
        for index in text.indices where text[index] > 32 {
            var damaged = text
            damaged[index] ^= 1
            let read = try? AgentRecord(text: damaged)
            #expect(read == nil || read == record, "byte \(index)")
        }
        for count in [0, 1, text.count / 2, text.count - 2] {
            #expect(throws: AgentRecord.Damage.self) { try AgentRecord(text: Array(text.prefix(count))) }
        }
    }

    @Test("Paths are recorded whole")
    func paths() throws {
        let recorded = try node("a", file: "disk.raw")
        #expect(recorded.arguments["file"]?["filename"]?.stringValue == (try Files.absolutePath("disk.raw")))
    }

    @Test("What replaces something takes its place, at the end")
    func replacement() throws {
        var record = AgentRecord()
        record.add(try node("a", configured: true))
        record.add(try node("b"))
        record.remove(try removal("blockdev-del", ["node-name": "a"]))
        record.add(try node("a", file: "/other"))
        #expect(record.items.map(\.name) == ["b", "a"])
        #expect(record.removed.isEmpty)
    }

    @Test("The end of the NBD server is the end of its exports")
    func server() throws {
        var record = AgentRecord()
        record.add(try item("nbd-server-start", ["addr": ["type": "unix", "data": ["path": "/s"]]]))
        record.add(try item("block-export-add", ["id": "e", "type": "nbd", "node-name": "a"]))
        record.add(try item("nbd-server-add", ["device": "a"]))
        record.add(try item("block-export-add", ["id": "f", "type": "fuse", "node-name": "a"]))
        record.remove(try removal("nbd-server-stop", [:]))
        #expect(record.items.map(\.name) == ["f"])
    }

    @Test("Commands that make nothing are not recorded")
    func others() {
        #expect(RecordedItem(command: "query-block", arguments: [:]) == nil)
        #expect(RecordedRemoval(command: "blockdev-add", arguments: [:]) == nil)
    }

    // MARK: The next start

    @Test("Without a living guest the configuration wins, and clients' work is added")
    func configurationWins() throws {
        var record = AgentRecord()
        record.add(try node("a", configured: true, file: "/old"))
        record.add(try node("c"))
        record.add(try node("d"))
        record.add(try item("guest-add", ["driver": "qemu"]))
        record.remove(try removal("blockdev-del", ["node-name": "a"]))
        let configured = [try node("a", configured: true, file: "/new"), try node("d", configured: true)]
        let plan = RestartPlan(configured: configured, record: record, guestLives: false, isSameBoot: true)
        #expect(plan.items.map(\.name) == ["a", "d", "c"])
        #expect(plan.items[0].arguments["file"]?["filename"] == "/new")
        // A guest that has ended meanwhile stays ended; after a boot of the host it is started again.
        let afterBoot = RestartPlan(configured: configured, record: record, guestLives: false, isSameBoot: false)
        #expect(afterBoot.items.last?.kind == .guest)
    }

    @Test("A living guest finds what it had, whatever is configured now")
    func recordWins() throws {
        var record = AgentRecord()
        record.add(try node("a", configured: true, file: "/old"))
        record.add(try node("gone", configured: true))
        record.add(try item("guest-add", ["driver": "qemu", "disks": ["a"]], configured: true))
        record.remove(try removal("blockdev-del", ["node-name": "gone"]))
        let configured = [
            try node("a", configured: true, file: "/new"), try node("gone", configured: true),
            try node("more", configured: true),
            try item("guest-add", ["driver": "qemu", "disks": ["a", "more"]], configured: true),
        ]
        let plan = RestartPlan(configured: configured, record: record, guestLives: true, isSameBoot: true)
        #expect(plan.items.map(\.name) == ["a", "", "more"])
        #expect(plan.items[0].arguments["file"]?["filename"] == "/old")
        #expect(plan.deferred.map(\.kind) == [.node, .guest])
    }
}

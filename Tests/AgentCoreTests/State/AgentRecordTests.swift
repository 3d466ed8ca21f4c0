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

    @Test("What shows a node stands behind it, also where the node has come to stand on a later one")
    func lateNodes() throws {
        var record = AgentRecord()
        record.add(try node("a"))
        record.add(try item("block-export-add", ["id": "e", "type": "nbd", "node-name": "a"]))
        record.add(try item("guest-add", ["driver": "qemu", "disks": ["a"]]))
        record.add(try node("late"))
        var shape = GraphShape()
        (shape.order, shape.exports, shape.disks) = (["late", "a"], ["e": "a"], ["a": "a"])
        #expect(record.follow(shape).isEmpty)
        #expect(record.items.map(\.kind) == [.node, .node, .export, .guest])
        #expect(record.items.prefix(3).map(\.name) == ["late", "a", "e"])
        let before = record
        _ = record.follow(shape)
        #expect(record == before)
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

    @Test("The guest's disks follow the graph, and later starts follow the record")
    func disksFollow() throws {
        var record = AgentRecord()
        record.add(try node("a", configured: true))
        let guest = try item("guest-add", ["driver": "qemu", "disks": ["a", "b"]], configured: true)
        record.add(guest)
        var shape = GraphShape()
        shape.nodes = [.init(name: "over", arguments: try node("over", file: "/over").arguments)]
        shape.order = ["a", "over"]
        shape.disks = ["a": "over", "b": "b"]
        #expect(GraphShape(json: .object(shape.json)) == shape)
        #expect(record.follow(shape).map(\.change) == ["the guest's disk 'a' is on node 'over'"])
        #expect(record.items.map(\.name) == ["a", "over", ""])
        #expect(record.guest?.movedDisks == ["a": "over"])
        #expect(record.follow(shape).isEmpty)
        let configured = [try node("a", configured: true), guest]
        let underGuest = RestartPlan(configured: configured, record: record, guestLives: true, isSameBoot: true)
        #expect(underGuest.deferred.isEmpty)

        // It ends, and the configured one begins where its disks were, behind the nodes.
        record.remove(try removal("guest-del", [:]))
        let plan = RestartPlan(configured: configured, record: record, guestLives: false, isSameBoot: true)
        #expect(plan.items.map(\.name) == ["a", "over", ""])
        #expect(plan.items.last?.movedDisks == ["a": "over"])
        // Unless the configuration says on which node.
        let own = try item(
            "guest-add", ["driver": "qemu", "disks": [["name": "a", "node-name": "a"], "b"]], configured: true)
        let other = RestartPlan(
            configured: [configured[0], own], record: record, guestLives: false, isSameBoot: true)
        #expect(other.items.last == own)
    }

    @Test("A disk that is back has its plain name again")
    func disksComeBack() throws {
        var record = AgentRecord()
        let guest = try item("guest-add", ["driver": "qemu", "disks": ["a"]])
        record.add(guest)
        var shape = GraphShape()
        for nodeName in ["over", "a"] {
            shape.disks = ["a": nodeName]
            #expect(record.follow(shape).count == 1)
        }
        #expect(record.guest == guest)
    }

    @Test("A node that comes to be defined inside another is made there")
    func nodesInside() throws {
        var record = AgentRecord()
        var shape = GraphShape()
        shape.nodes = [.init(name: "over", arguments: try node("over").arguments, goesWithUsers: true)]
        shape.order = ["over"]
        #expect(record.follow(shape).isEmpty)
        #expect(record.items.map(\.goesWithUsers) == [true])
        #expect(try AgentRecord(text: record.text) == record)
        var second = try node("second").arguments
        second["backing"] = .object(try node("over").arguments)
        shape.nodes = [.init(name: "second", arguments: second, goesWithUsers: true)]
        shape.order = ["second"]
        #expect(record.follow(shape).isEmpty)
        #expect(record.items.map(\.name) == ["second"])
    }

    @Test("A node that went with its last user is not made again")
    func nodesThatWent() throws {
        var record = AgentRecord()
        record.add(try node("a", configured: true))
        record.add(try node("over"))
        var shape = GraphShape()
        shape.order = ["a"]
        shape.gone = ["over"]
        #expect(GraphShape(json: .object(shape.json)) == shape)
        #expect(record.follow(shape).isEmpty)
        #expect(record.items.map(\.name) == ["a"])
    }
}

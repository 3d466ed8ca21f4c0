import ColdframeKit
import QAPI
import Testing

@testable import AgentCore

@AgentActor
@Suite("Transaction")
struct TransactionTests {
    @AgentActor
    private final class Log {
        var lines: [String] = []
    }

    /// A step that writes down what it is asked, and fails where it is told to.
    @AgentActor
    private final class ScriptedStep: TransactionStep {
        private let name: String
        private let log: Log
        private let failing: String?
        let drainedNodes: [GraphNode]
        init(_ name: String, _ log: Log, failing: String? = nil, nodes: [GraphNode] = []) {
            self.name = name
            self.log = log
            self.failing = failing
            drainedNodes = nodes
        }
        private func note(_ phase: String) throws {
            log.lines.append("\(phase) \(name)")
            if failing == phase { throw ColdframeError(.io, "\(phase) of \(name)") }
        }
        func check() async throws { try note("check") }
        func cut() async throws { try note("cut") }
        func commit() async { log.lines.append("commit \(name)") }
        func abort() async throws { try note("abort") }
        func clean() async { log.lines.append("clean \(name)") }
    }

    @Test("Every phase of all steps comes before the next phase of any")
    func success() async throws {
        let (world, log) = (try await World(), Log())
        try await Transaction([ScriptedStep("a", log), ScriptedStep("b", log)], graph: world.graph).run(
            TransactionJournal(world.context))
        #expect(
            log.lines == ["check a", "check b", "cut a", "cut b", "commit a", "commit b", "clean a", "clean b"])
    }

    @Test("A cut that fails aborts what was cut and itself, backwards, and not what comes later; all are cleaned")
    func failingCut() async throws {
        let (world, log) = (try await World(), Log())
        let steps = [ScriptedStep("a", log), ScriptedStep("b", log, failing: "cut"), ScriptedStep("c", log)]
        #expect(
            await refusal { try await Transaction(steps, graph: world.graph).run(TransactionJournal(world.context)) }
                == "cut of b")
        #expect(
            log.lines == [
                "check a", "check b", "check c", "cut a", "cut b", "abort b", "abort a", "clean a", "clean b",
                "clean c",
            ])
    }

    @Test("A check that fails changes nothing; all are cleaned")
    func failingCheck() async throws {
        let (world, log) = (try await World(), Log())
        let steps = [ScriptedStep("a", log, failing: "check"), ScriptedStep("b", log)]
        #expect(
            await refusal { try await Transaction(steps, graph: world.graph).run(TransactionJournal(world.context)) }
                == "check of a")
        #expect(log.lines == ["check a", "clean a", "clean b"])
    }

    @Test("An abort that fails does not keep the others from theirs, and is told")
    func failingAbort() async throws {
        let (world, log) = (try await World(), Log())
        let steps = [
            ScriptedStep("a", log), ScriptedStep("b", log, failing: "abort"), ScriptedStep("c", log, failing: "cut"),
        ]
        #expect(
            await refusal { try await Transaction(steps, graph: world.graph).run(TransactionJournal(world.context)) }
                == "cut of c; undoing the rest failed too: abort of b")
        #expect(log.lines.suffix(6) == ["abort c", "abort b", "abort a", "clean a", "clean b", "clean c"])
    }

    @Test("Gates of the nodes and of those above are closed for the cut, and open afterwards, also after a failure")
    func gates() async throws {
        let (world, log) = (try await World(disks: 1), Log())
        try await world.add("top", file: .reference("d0"))
        let (node, top) = (try world.graph.find(nodeOnly: "d0"), try world.graph.find(nodeOnly: "top"))
        let transaction = Transaction([ScriptedStep("a", log, nodes: [node])], graph: world.graph)
        try await transaction.drain(deadlineNanoseconds: nil)
        #expect(node.block.gate.isClosed && top.block.gate.isClosed)
        transaction.letGo()
        #expect(!node.block.gate.isClosed && !top.block.gate.isClosed)
        let failing = Transaction([ScriptedStep("a", log, failing: "cut", nodes: [node])], graph: world.graph)
        #expect(await refusal { try await failing.run(TransactionJournal(world.context)) } == "cut of a")
        #expect(!node.block.gate.isClosed && !top.block.gate.isClosed)
    }

    @Test("A drain that reaches its deadline opens all gates and names the node")
    func drainDeadline() async throws {
        let (world, log) = (try await World(), Log())
        let nodes = try ["d0", "d1"].map { try world.graph.find(nodeOnly: $0) }
        nodes[0].block.gate.enter()
        let transaction = Transaction([ScriptedStep("a", log, nodes: nodes)], graph: world.graph)
        #expect(
            await refusal { try await transaction.drain(deadlineNanoseconds: 1) }
                == "Node 'd0' still had requests in flight when the deadline passed")
        #expect(!nodes[0].block.gate.isClosed && !nodes[1].block.gate.isClosed)
        nodes[0].block.gate.leave()
    }

    // MARK: Actions

    private func snapshot(_ device: String, _ name: String) -> TransactionAction {
        TransactionAction(
            type: "blockdev-snapshot-internal-sync", branch: BlockdevSnapshotInternal(device: device, name: name))
    }
    private let abort = TransactionAction(type: "abort", branch: Abort())

    private func run(_ world: World, _ actions: [TransactionAction]) async -> String? {
        await refusal {
            try await TransactionCoordinator(context: world.context, jobs: world.jobs, lane: world.lane).run(
                .init(actions: actions))
        }
    }

    @Test("abort takes back what came before it")
    func abortAction() async throws {
        let world = try await World()
        #expect(
            await run(world, [snapshot("d0", "a"), snapshot("d1", "a"), abort])
                == "Transaction aborted using Abort action")
        #expect(world.traces(of: "a") == [])
        #expect(await run(world, [snapshot("d0", "a"), snapshot("d1", "a")]) == nil)
        #expect(world.disk("d1").tags == ["a"])
    }

    @Test("One name cannot be taken twice in one transaction")
    func sameNameTwice() async throws {
        let world = try await World()
        #expect(
            await run(world, [snapshot("d0", "a"), snapshot("d0", "a")])
                == "Snapshot with name 'a' already exists on device 'd0'")
        #expect(world.traces(of: "a") == [])
    }

    @Test("An internal snapshot is refused with QEMU's texts")
    func refusals() async throws {
        let world = try await World(disks: 1)
        try await world.add("ro", readOnly: true)
        try await world.add("top", file: .reference("d0"))
        #expect(await run(world, [snapshot("zz", "a")]) == "Cannot find device='zz' nor node-name='zz'")
        #expect(await run(world, [snapshot("top", "")]) == "Name is empty")
        #expect(await run(world, [snapshot("ro", "a")]) == "Device 'ro' is read only")
        #expect(await run(world, [snapshot("d0", "a")]) == "Need a root block node")
    }
}

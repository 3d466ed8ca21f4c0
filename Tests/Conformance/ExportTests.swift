import ColdframeKit
import ConformanceKit
import QAPI
import QMPWire
import Testing

@testable import AgentCore

/// One type of export, in an agent with all modules.
struct ExportUnderTest: DriverUnderTest {
    let factory: any BlockExportFactory
    var name: String { factory.typeName }

    /// All types of all modules that need nothing but a node.
    static let all: [ExportUnderTest] = ModulesUnderTest.all.flatMap(\.blockExports).compactMap {
        guard let sample = SampleOptions(union: "BlockExportOptions", value: $0.typeName), sample.others.isEmpty,
            sample.nodes.isEmpty
        else {
            print("\($0.typeName): an export that needs more than a node has its tests in its own folder")
            return nil
        }
        return ExportUnderTest(factory: $0)
    }

    /// What an export of the type needs before it, if it does need something.
    var needsServer: Bool { name == "nbd" }
}

/// What an export of whatever type keeps to: it holds its node while it is there, and nothing when it is gone.
///
/// One after the other: the modules of one process have one server.
@Suite(.serialized) struct ExportTests {
    /// Runs `body` with an agent that has the node `n`; nothing is left of its exports afterwards.
    @AgentActor
    private func withNode(
        _ tested: ExportUnderTest, isPrepared: Bool = true, _ body: @AgentActor (Agent) async throws -> Void
    ) async throws {
        let folder = try ToolFolder()
        try folder.write(SeededGenerator.bytes(1 << 20, seed: 1), to: "disk")
        try await withAgent { agent in
            if isPrepared, tested.needsServer {
                let address: JSONValue = ["type": "unix", "data": ["path": .string(folder.path("socket"))]]
                _ = try await agent.commands.execute("nbd-server-start", ["addr": address])
            }
            do {
                _ = try await agent.commands.execute(
                    "blockdev-add", ["driver": "file", "node-name": "n", "filename": .string(folder.path("disk"))])
                try await body(agent)
            } catch {
                await end(agent, tested)
                throw error
            }
            await end(agent, tested)
            guard try await exportCount(agent) == 0 else { throw failure(tested, "is there after its agent has ended") }
        }
    }

    @AgentActor
    private func end(_ agent: Agent, _ tested: ExportUnderTest) async {
        await agent.exports.removeAll()
        if tested.needsServer { _ = try? await agent.commands.execute("nbd-server-stop", [:]) }
    }

    @AgentActor
    private func exportCount(_ agent: Agent) async throws -> Int {
        try await agent.commands.execute("query-block-exports", [:]).arrayValue?.count ?? -1
    }

    @AgentActor
    private func add(_ tested: ExportUnderTest, _ agent: Agent, id: String = "e", node: String = "n") async throws {
        _ = try await agent.commands.execute(
            "block-export-add",
            ["type": .string(tested.name), "id": .string(id), "node-name": .string(node), "writable": true])
    }

    @AgentActor
    private func expectRefused(
        _ tested: ExportUnderTest, _ what: String, _ body: @AgentActor () async throws -> Void
    ) async throws {
        do { try await body() } catch {
            guard !"\(error)".isEmpty else { throw failure(tested, "refuses \(what) without a word") }
            return
        }
        throw failure(tested, "does not refuse \(what)")
    }

    @Test(arguments: ExportUnderTest.all) func itsNodeIsHeldAndLetGo(tested: ExportUnderTest) async throws {
        try await withNode(tested) { agent in
            for _ in 0..<3 {
                try await add(tested, agent)
                try await expectRefused(tested, "that its node goes") {
                    _ = try await agent.commands.execute("blockdev-del", ["node-name": "n"])
                }
                try await expectRefused(tested, "a second export of the id") { try await add(tested, agent) }
                _ = try await agent.commands.execute("block-export-del", ["id": "e", "mode": "hard"])
                while try await exportCount(agent) > 0 { try await Task.sleep(nanoseconds: 1_000_000) }
            }
            _ = try await agent.commands.execute("blockdev-del", ["node-name": "n"])
        }
    }

    @Test(arguments: ExportUnderTest.all) func whatCannotBeginLeavesNothing(tested: ExportUnderTest) async throws {
        try await withNode(tested, isPrepared: false) { agent in
            try await expectRefused(tested, "a node that is not there") { try await add(tested, agent, node: "x") }
            if tested.needsServer {
                try await expectRefused(tested, "to begin alone") { try await add(tested, agent) }
                _ = try await agent.commands.execute("blockdev-del", ["node-name": "n"])
            }
            guard try await exportCount(agent) == 0 else { throw failure(tested, "is listed and did not begin") }
        }
    }

    @Test(arguments: ExportUnderTest.all) func optionsOfAnotherTypeAreRefused(tested: ExportUnderTest) async throws {
        try await withNode(tested) { agent in
            let options = BlockExportOptions(type: tested.name, id: "e", nodeName: "n", branch: QAPIEmpty())
            let node = try agent.graph.find(nodeOnly: "n").block
            try await expectRefused(tested, "options of another type") {
                _ = try await tested.factory.start(options, node: node, services: agent.services, onGone: {})
            }
        }
    }

    @Test(arguments: ExportUnderTest.all) func anAgentEndsWithItsExports(tested: ExportUnderTest) async throws {
        try await withNode(tested) { agent in
            for id in ["a", "b"] {
                let name = tested.name == "nbd" ? ["name": JSONValue.string(id)] : [:]
                var options: JSONObject = [
                    "type": .string(tested.name), "id": .string(id), "node-name": "n", "writable": false,
                ]
                for (key, value) in name { options[key] = value }
                _ = try await agent.commands.execute("block-export-add", options)
            }
        }
    }
}

import ColdframeKit
import Logging
import Testing

@testable import AgentCore

@AgentActor
@Suite("Recovery of interrupted operations")
struct IntentRecoveryTests {
    /// What the next agent does with the journal as it is.
    private func restart(_ world: World) async throws -> Journal {
        let journal = try Journal(path: world.folder + "/journal")
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        await IntentRecovery(graph: world.graph, journal: journal, logger: logger).run()
        return journal
    }

    @Test("A save whose undo failed is undone")
    func save() async throws {
        let world = try await World()
        world.disk("d1").fail("create")
        world.disk("d0").fail("delete")
        #expect(try await world.save() != nil)
        #expect(world.disk("d0").tags == ["t"])
        #expect(try await restart(world).pending.isEmpty)
        #expect(world.disk("d0").tags == [])
    }

    @Test("A delete that stopped halfway goes on to its end")
    func delete() async throws {
        let world = try await World(disks: 3)
        #expect(try await world.save() == nil)
        world.disk("d1").fail("delete")
        #expect(try await world.delete() != nil)
        #expect(try await restart(world).pending.isEmpty)
        #expect(world.disk("d1").tags == [])
    }

    /// A load that left its undo on d0, whose content is the snapshot's.
    private func interruptedLoad() async throws -> World {
        let world = try await World()
        for name in world.names { world.disk(name).content = 1 }
        #expect(try await world.save() == nil)
        for name in world.names { world.disk(name).content = 2 }
        world.disk("d1").fail("revert")
        world.disk("d0").fail("revert", call: 2)
        #expect(try await world.load() != nil)
        #expect(world.disk("d0").content == 1)
        return world
    }

    @Test("A load that stopped halfway is undone")
    func load() async throws {
        let world = try await interruptedLoad()
        #expect(try await restart(world).pending.isEmpty)
        #expect(world.disk("d0").content == 2)
        #expect(world.disk("d0").tags == ["t"])
    }

    @Test("A disk that somebody uses is not wound back")
    func loadInUse() async throws {
        let world = try await interruptedLoad()
        let use = NodeUse(.export("e"), role: "root", permissions: .write, shared: .all)
        try world.graph.find(nodeOnly: "d0").add(use)
        #expect(try await restart(world).pending.count == 1)
        #expect(world.disk("d0").content == 1)
    }

    @Test("While an image is missing the intent stays, and nothing is touched")
    func missingImage() async throws {
        let world = try await interruptedLoad()
        try await world.graph.remove(nodeName: "d1")
        #expect(try await restart(world).pending.count == 1)
        #expect(world.disk("d0").content == 1)
    }
}

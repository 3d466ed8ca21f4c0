import ColdframeKit
import Logging
import QAPI
import Testing

@testable import AgentCore

@AgentActor
@Suite("Recovery of interrupted operations")
struct IntentRecoveryTests {
    /// What the next agent does with the journal as it is.
    private func restart(_ world: World) async throws -> Journal {
        let journal = try Journal(path: world.folder + "/journal")
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        await IntentRecovery(
            graph: world.graph, journal: journal, catalogue: world.catalogue, sets: world.sets, logger: logger
        ).run()
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

    // MARK: Transactions

    private func snapshot(_ device: String) -> TransactionAction {
        TransactionAction(
            type: "blockdev-snapshot-internal-sync", branch: BlockdevSnapshotInternal(device: device, name: "x"))
    }

    @Test("A transaction whose undo failed is undone: by the ids and dates that were planned, nothing else")
    func transaction() async throws {
        let world = try await World(disks: 3)
        _ = try world.disk("d0").createSnapshot(SnapshotRequest(name: "x0", dateSeconds: 1, dateNanoseconds: 0))
        world.disk("d2").fail("create")
        world.disk("d0").fail("delete")
        let error = await refusal {
            try await TransactionCoordinator(context: world.context, jobs: world.jobs, lane: world.lane).run(
                .init(actions: ["d0", "d1", "d2"].map(snapshot)))
        }
        #expect(error?.contains("undoing the rest failed too") == true)
        #expect(world.disk("d0").tags == ["x0", "x"])
        #expect(world.catalogue.set(tagged: "x") == nil)
        #expect(try await restart(world).pending.isEmpty)
        #expect(world.disk("d0").tags == ["x0"])
    }

    @Test("A snapshot that took the id of the one that was planned stays")
    func foreignSnapshot() async throws {
        let world = try await World()
        let journal = try Journal(path: world.folder + "/journal")
        let images = try ["d0", "d1"].map { name in
            var image = Intent.Image(try world.graph.find(nodeOnly: name))
            image.snapshot = Intent.Snapshot(id: "1", name: "x", dateSeconds: 5, dateNanoseconds: 6)
            return image
        }
        try journal.record(.begin, Intent(uuid: "u", operation: .transaction, tag: "x", images: images))
        _ = try world.disk("d0").createSnapshot(SnapshotRequest(name: "x", dateSeconds: 5, dateNanoseconds: 7))
        _ = try world.disk("d1").createSnapshot(SnapshotRequest(name: "x", dateSeconds: 5, dateNanoseconds: 6))
        #expect(try await restart(world).pending.isEmpty)
        #expect(world.disk("d0").tags == ["x"])
        #expect(world.disk("d1").tags == [])
    }

    @Test("Single steps leave no intent, several leave none when they are over")
    func noIntentIsLeft() async throws {
        let world = try await World()
        for devices in [["d0"], ["d0", "d1"]] {
            let actions = devices.map { device in
                TransactionAction(
                    type: "blockdev-snapshot-internal-sync",
                    branch: BlockdevSnapshotInternal(device: device, name: "x\(devices.count)"))
            }
            try await TransactionCoordinator(context: world.context, jobs: world.jobs, lane: world.lane).run(
                .init(actions: actions))
        }
        #expect(world.leftovers == [])
        #expect(world.disk("d0").tags == ["x1", "x2"])
    }

    // MARK: What is in the way

    @Test("An image that is missing, read-only or another file is named, and its tag stays hidden")
    func obstacles() async throws {
        let world = try await interruptedLoad()
        try await world.graph.remove(nodeName: "d1")
        let journal = try Journal(path: world.folder + "/journal")
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let recovery = IntentRecovery(
            graph: world.graph, journal: journal, catalogue: world.catalogue, sets: world.sets, logger: logger)
        await recovery.run()
        let intents = await recovery.information()
        #expect(intents.map(\.obstacles) == [["Image '/images/d1' of node 'd1' cannot be found"]])
        #expect(world.catalogue.sets.map(\.tag) == ["t"])
        try await world.add("d1", readOnly: true)
        world.factory.put(FakeDisk("d1", isReadOnly: true), as: "d1")
        #expect(await recovery.information()[0].obstacles != [])
    }

    @Test("A file that only has the inode's number of the one that was named is another")
    func identity() async throws {
        let named = Intent.Image(
            nodeName: "a", path: "/a", device: 1, inode: 2, birthNanoseconds: 3, format: "qcow2")
        func file(_ device: UInt64, _ inode: UInt64, _ path: String, _ birth: UInt64?) -> Bool {
            named.isFile(FileIdentity(device: device, inode: inode, path: path, birthNanoseconds: birth))
        }
        #expect(file(1, 2, "/a", 3) && file(1, 2, "/moved", 3))
        #expect(file(9, 2, "/a", 3), "the device's number after a reboot")
        #expect(!file(9, 2, "/b", 3) && !file(1, 2, "/a", 4) && !file(1, 3, "/a", 3) && !file(1, 2, "/a", nil))
    }
}

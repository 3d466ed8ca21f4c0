import ColdframeKit
import Testing

@testable import AgentCore

@AgentActor
@Suite("Catalogue")
struct CatalogueTests {
    private func stranger(_ world: World, _ name: String, on node: String) throws {
        _ = try world.disk(node).createSnapshot(SnapshotRequest(name: name, dateSeconds: 1, dateNanoseconds: 0))
    }

    @Test("One stranger's snapshot is a set of its own, two of one name are mixed")
    func strangers() async throws {
        let world = try await World()
        try stranger(world, "a", on: "d0")
        #expect(world.catalogue.set(tagged: "a")?.isComplete == true)
        try stranger(world, "a", on: "d1")
        let set = try #require(world.catalogue.set(tagged: "a"))
        #expect(set.isMixed && !set.isComplete && set.uuid == nil)
    }

    @Test("A set that lost a member is not complete")
    func incomplete() async throws {
        let world = try await World()
        #expect(try await world.save() == nil)
        try world.disk("d1").deleteSnapshot(id: "1")
        let set = try #require(world.catalogue.set(tagged: "t"))
        #expect(!set.isMixed && !set.isComplete)
    }

    @Test("A set whose state is missing is not complete")
    func stateMissing() async throws {
        let world = try await World(disks: 1)
        let record = SetRecord(uuid: "00000000-0000-4000-8000-000000000001", memberCount: 1, way: .live)
        var request = SnapshotRequest(name: "t", dateSeconds: 1, dateNanoseconds: 0)
        request.annotation = record.bytes
        _ = try world.disk("d0").createSnapshot(request)
        #expect(world.catalogue.set(tagged: "t")?.isComplete == false)
    }

    @Test("Hidden sets and snapshots are not listed")
    func hidden() async throws {
        let world = try await World()
        #expect(try await world.save() == nil)
        let uuid = try #require(world.catalogue.set(tagged: "t")?.uuid)
        let save = Intent(uuid: uuid, operation: .save, tag: "t", images: [])
        world.catalogue.hide(save)
        #expect(world.catalogue.sets.isEmpty)
        world.catalogue.show(save)
        var image = Intent.Image(try world.graph.find(nodeOnly: "d0"))
        image.snapshot = Intent.Snapshot(world.disk("d0").snapshots[0])
        world.catalogue.hide(Intent(uuid: "other", operation: .delete, tag: "t", images: [image]))
        #expect(world.catalogue.sets.first?.members.map(\.nodeName) == ["d1"])
    }

    @Test("Children of nodes are not listed")
    func children() async throws {
        let world = try await World(disks: 0)
        try await world.graph.add(
            .init(
                driver: "fake", nodeName: "top",
                branch: FakeBranch(file: .definition(.init(driver: "fake", branch: FakeBranch())))))
        #expect(world.catalogue.bearers.map(\.node.name) == ["top"])
    }

    @Test("An observer is told at once and after every change, until it is cancelled")
    func observers() async throws {
        let world = try await World()
        var seen: [Int] = []
        let token = world.catalogue.observe { seen.append($0.count) }
        #expect(try await world.save() == nil)
        token.cancel()
        world.catalogue.changed()
        #expect(seen == [0, 1])
    }
}

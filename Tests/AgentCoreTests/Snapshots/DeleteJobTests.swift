import ColdframeKit
import LinuxSystem
import Testing

@testable import AgentCore

@AgentActor
@Suite("snapshot-delete")
struct DeleteJobTests {
    @Test("The tag goes from all devices that have it")
    func all() async throws {
        let world = try await World(disks: 3)
        #expect(try await world.save(devices: ["d0", "d1"]) == nil)
        #expect(try await world.delete() == nil)
        #expect(world.traces() == [])
    }

    @Test("A tag that is nowhere is an error")
    func missing() async throws {
        let world = try await World()
        #expect(try await world.delete() == "Snapshot 't' does not exist in one or more devices")
    }

    @Test("A failure at the first image changes nothing")
    func firstFails() async throws {
        let world = try await World()
        #expect(try await world.save() == nil)
        world.disk("d0").fail("delete")
        #expect(
            try await world.delete()
                == "Snapshot 't' could not be deleted from 'd0': delete was told to fail. Nothing was changed")
        #expect(world.catalogue.set(tagged: "t")?.isComplete == true)
        #expect(world.leftovers == [])
        #expect(try await world.delete() == nil)
    }

    @Test("A failure at a later image leaves the rest hidden and pending")
    func laterFails() async throws {
        let world = try await World(disks: 3)
        #expect(try await world.save() == nil)
        world.disk("d1").fail("delete")
        #expect(try await world.delete()?.hasSuffix("The rest is done at the agent's next start") == true)
        #expect(world.catalogue.sets.isEmpty)
        #expect(world.disk("d2").tags == [])
        #expect(world.journal.pending.map(\.intent.operation) == [.delete])
    }

    @Test("A cancel before the first image has changed changes nothing; later the delete goes on", arguments: [0, 1])
    func cancelled(disk: Int) async throws {
        let world = try await World()
        #expect(try await world.save() == nil)
        let isCancelled = Flag()
        let cancelled = ConditionVariable()
        world.disk("d\(disk)").before("delete") { cancelled.wait { isCancelled.isSet } }
        let job = Task { @AgentActor in try await world.delete() }
        while world.disk("d\(disk)").callCount("delete") == 0 { try await Task.sleep(nanoseconds: 500_000) }
        try await world.jobs.cancel(id: try #require(world.jobs.information.first).id)
        isCancelled.set()
        cancelled.broadcast()
        let error = try await job.value
        #expect(world.leftovers == [])
        #expect((world.catalogue.set(tagged: "t")?.isComplete == true) == (disk == 0))
        if disk == 0 { #expect(error == "Operation canceled") }
    }

    @Test("A snapshot that is open somewhere stays, and its holder is named")
    func leased() async throws {
        let world = try await World()
        #expect(try await world.save() == nil)
        let node = try world.graph.find(nodeOnly: "d1")
        let lease = try await world.leases.open(node: node, snapshotID: "1", holder: "tree 'x'")
        #expect(try await world.delete() == "Snapshot 't' is open in tree 'x': close it there first")
        #expect(world.catalogue.set(tagged: "t")?.holders == ["tree 'x'"])
        lease.release()
        #expect(try await world.delete() == nil)
    }

    @Test("Nobody opens a snapshot that is being deleted")
    func openDuringDelete() async throws {
        let world = try await World()
        #expect(try await world.save() == nil)
        let node = try world.graph.find(nodeOnly: "d1")
        let keys = [SnapshotKey(node: "d1", id: "1")]
        try world.leases.beginDelete(keys, tag: "t")
        let open = { () async throws in
            _ = try await world.leases.open(node: node, snapshotID: "1", holder: "tree 'x'")
        }
        #expect(await refusal(open) == "A snapshot of node 'd1' is being deleted")
        world.leases.endDelete(keys)
        #expect(await refusal(open) == nil)
    }

    @Test("A snapshot that cannot be opened leaves no lease")
    func failingOpen() async throws {
        let world = try await World()
        #expect(try await world.save() == nil)
        world.disk("d1").fail("open")
        let node = try world.graph.find(nodeOnly: "d1")
        #expect(
            await refusal { _ = try await world.leases.open(node: node, snapshotID: "1", holder: "x") }
                == "open was told to fail")
        #expect(world.leases.holders(node: "d1") == [])
    }
}

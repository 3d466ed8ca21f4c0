import ColdframeKit
import QMPWire
import Testing

@testable import AgentCore

@AgentActor
@Suite("snapshot-save")
struct SaveJobTests {
    @Test("Without a guest all disks get one set of snapshots")
    func disksOnly() async throws {
        let world = try await World(disks: 3)
        #expect(try await world.save() == nil)
        let set = try #require(world.catalogue.set(tagged: "t"))
        #expect(set.isComplete && !set.isMixed && set.members.count == 3)
        #expect(set.vmStateMember == nil)
        #expect(world.events("SNAPSHOT_SAVED").first?["way"] == "disks")
        #expect(world.leftovers == [])
    }

    @Test("With a guest the state is beside the disks, and the guest was asked in order")
    func live() async throws {
        let world = try await World(withGuest: true)
        #expect(try await world.save() == nil)
        let guest = try #require(world.guest)
        #expect(guest.log == ["begin live", "stopped", "release", "finish"])
        let set = try #require(world.catalogue.set(tagged: "t"))
        #expect(set.isComplete)
        #expect(set.vmStateMember?.nodeName == "d0")
        #expect(set.vmStateMember?.snapshot.vmStateByteCount == 100_000)
        let event = try #require(world.events("SNAPSHOT_SAVED").first)
        #expect(event["way"] == "live")
        #expect(event["pause-ns"] == 3_000_000)
        #expect(event["reason"] == nil)
        #expect(world.leftovers == [])
    }

    @Test("auto falls through live and precopy to paused, and says why")
    func fallback() async throws {
        let world = try await World(withGuest: true)
        world.guest?.blockers = [.live: ["no userfaultfd"], .precopy: ["a device cannot migrate"]]
        #expect(try await world.save() == nil)
        #expect(world.events("SNAPSHOT_SAVE_FALLBACK").map { $0["way"] } == ["live", "precopy"])
        #expect(world.events("SNAPSHOT_SAVE_FALLBACK").first?["reasons"] == ["no userfaultfd"])
        let event = try #require(world.events("SNAPSHOT_SAVED").first)
        #expect(event["way"] == "paused")
        #expect(event["reason"] == "live: no userfaultfd; precopy: a device cannot migrate")
    }

    @Test("auto goes on to the next way when the guest refuses to begin one")
    func refusedAtTheBeginning() async throws {
        let world = try await World(withGuest: true)
        world.guest?.refusals = [.live: "Kernel does not support it"]
        #expect(try await world.save() == nil)
        #expect(world.guest?.log.first == "begin live")
        #expect(world.events("SNAPSHOT_SAVED").first?["way"] == "precopy")
        #expect(world.events("SNAPSHOT_SAVE_FALLBACK").first?["reasons"] == ["Kernel does not support it"])
        #expect(world.leftovers == [])
    }

    @Test("A guest that stands still is saved as it stands")
    func pausedGuest() async throws {
        let world = try await World(withGuest: true)
        world.guest?.state = .stopped("paused")
        #expect(try await world.save() == nil)
        #expect(world.guest?.log.first == "begin paused")
        #expect(world.guest?.log.contains("cont") == false)
    }

    @Test("An explicit mode fails with the reasons, and no event of a fallback")
    func explicitMode() async throws {
        let world = try await World(withGuest: true)
        world.guest?.blockers = [.live: ["no userfaultfd", "vhost-user"]]
        let error = try await world.save(mode: .live)
        #expect(error == "Snapshot 't' cannot be made: live: no userfaultfd; live: vhost-user")
        #expect(world.events("SNAPSHOT_SAVE_FALLBACK").isEmpty)
        #expect(world.guest?.log == [])
        #expect(world.traces() == [])
    }

    @Test("A mode of a guest needs one")
    func modeWithoutGuest() async throws {
        let world = try await World()
        #expect(try await world.save(mode: .live) == "Mode 'live' needs a guest, and this agent has none")
    }

    @Test("A guest that is gone is not saved")
    func goneGuest() async throws {
        let world = try await World(withGuest: true)
        world.guest?.state = .gone("killed by signal 9")
        #expect(try await world.save() == "Guest 'g' is gone: killed by signal 9")
        #expect(world.guest?.log == [])
    }

    @Test("What QEMU refuses is refused with its text, before the guest is touched")
    func refusals() async throws {
        let world = try await World(withGuest: true)
        try await world.add("ro", readOnly: true)
        #expect(try await world.save(devices: []) == "At least one device is required for snapshot")
        #expect(try await world.save(devices: ["zz"]) == "No block device node 'zz'")
        #expect(
            try await world.save(devices: ["d0", "d1", "ro"])
                == "Device 'ro' is writable but does not support snapshots")
        #expect(try await world.save(devices: ["d1"]) == "vmstate block device 'd0' does not exist")
        #expect(try await world.save("", devices: ["d0", "d1"]) == "Name is empty")
        #expect(try await world.save(devices: ["d0"])?.contains("The guest writes to 'd1'") == true)
        #expect(world.guest?.log == [])
    }

    @Test("A tag that one device has is taken")
    func duplicateTag() async throws {
        let world = try await World()
        #expect(try await world.save(devices: ["d1"]) == nil)
        #expect(try await world.save() == "Snapshot 't' already exists in one or more devices")
        #expect(world.disk("d0").tags == [])
    }

    @Test("A request that comes during the cut makes it be cut again, under ids of its own")
    func disturbedCut() async throws {
        let world = try await World(withGuest: true)
        let (disk, node) = (world.disk("d1"), try world.graph.find(nodeOnly: "d1").block)
        let before = node.gate.arrivals
        disk.before("create") {
            Disturbance.request(to: node)
            while node.gate.arrivals == before { Pause.briefly() }
        }
        #expect(try await world.save() == nil)
        #expect(disk.callCount("create") == 2)
        #expect(disk.tags == ["t"])
        #expect(disk.snapshots.first?.id == "2")
        #expect(world.leftovers == [])
    }

    @Test("A cut that takes longer than the guest may be held fails the save")
    func lateCut() async throws {
        let world = try await World(withGuest: true)
        world.holdLimitMilliseconds = 300
        world.disk("d1").before("create") { Pause.milliseconds(350) }
        let error = try await world.save()
        #expect(error == "The disks were not cut while the guest was held at its barrier")
        #expect(world.guest?.log.contains("abandon") == true)
        #expect(world.traces() == [])
    }

    @Test("A request that does not end while the guest is held fails the save, and names the node")
    func stuckRequest() async throws {
        let world = try await World(withGuest: true)
        world.holdLimitMilliseconds = 100
        let gate = try world.graph.find(nodeOnly: "d1").block.gate
        gate.enter()
        let error = try await world.save()
        gate.leave()
        #expect(error == "Requests on node 'd1' did not end while the guest was held at its barrier")
        #expect(world.traces() == [])
    }

    @Test("Nodes cannot be deleted while they are saved")
    func heldNodes() async throws {
        let world = try await World(withGuest: true)
        var text: String?
        world.guest?.at = { step in
            if step == "stopped" { text = await refusal { try await world.graph.remove(nodeName: "d1") } }
        }
        #expect(try await world.save() == nil)
        #expect(text == "Node 'd1' is busy: block device is in use by block job: snapshot-save")
    }
}

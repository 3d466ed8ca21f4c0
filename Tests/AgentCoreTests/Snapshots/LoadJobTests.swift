import ColdframeKit
import QAPI
import QMPWire
import Testing

@testable import AgentCore

@AgentActor
@Suite("snapshot-load", .timeLimit(.minutes(1)))
struct LoadJobTests {
    /// A world with tag `t` at content 1, and content 2 now.
    private func saved(withGuest: Bool) async throws -> World {
        let world = try await World(withGuest: withGuest)
        for name in world.names { world.disk(name).content = 1 }
        #expect(try await world.save() == nil)
        for name in world.names { world.disk(name).content = 2 }
        world.guest?.log = []
        return world
    }

    private func contents(_ world: World) -> [UInt64] { ["d0", "d1"].map { world.disk($0).content } }

    @Test("Without a guest the disks go back, and the undo goes")
    func disksOnly() async throws {
        let world = try await saved(withGuest: false)
        #expect(try await world.load() == nil)
        #expect(contents(world) == [1, 1])
        #expect(world.disk("d0").tags == ["t"])
        #expect(world.leftovers == [])
    }

    @Test("With a guest: stop, rewind, load, cont")
    func inPlace() async throws {
        let world = try await saved(withGuest: true)
        #expect(try await world.load() == nil)
        #expect(world.guest?.log == ["stop", "load", "conclude", "cont"])
        #expect(world.guest?.loadedTag == "t")
        #expect(contents(world) == [1, 1])
        #expect(world.leftovers == [])
    }

    @Test("A guest that stood still stays so")
    func stoppedGuest() async throws {
        let world = try await saved(withGuest: true)
        world.guest?.state = .stopped("paused")
        #expect(try await world.load() == nil)
        #expect(world.guest?.log == ["load", "conclude"])
    }

    @Test("What is wrong is found before the guest is stopped")
    func refusals() async throws {
        let world = try await saved(withGuest: true)
        #expect(try await world.load("zz") == "Snapshot 'zz' does not exist in one or more devices")
        #expect(try await world.load(devices: ["d0"])?.contains("was made of 2 devices, and 1 are given") == true)
        #expect(try await world.load(devices: ["d1"]) == "vmstate block device 'd0' does not exist")
        world.guest?.machine.memoryByteCount = 128
        #expect(try await world.load()?.contains("64 bytes of memory, now 128") == true)
        world.guest?.machine.memoryByteCount = 64
        world.disk("d0").damageState(of: "1")
        #expect(try await world.load()?.contains("its checksum is not the one of the save") == true)
        #expect(world.guest?.log == [])
        #expect(contents(world) == [2, 2])
        #expect(world.leftovers == [])
    }

    @Test("Snapshots of two saves are not loaded as one")
    func mixed() async throws {
        let world = try await World()
        #expect(try await world.save(devices: ["d0"]) == nil)
        #expect(try await world.save(devices: ["d1"]) == nil)
        #expect(try await world.load()?.contains("are not of one save") == true)
    }

    @Test("A set of disks alone has nothing for a guest")
    func diskOnlySet() async throws {
        let world = try await World(withGuest: true)
        #expect(try await world.save(mode: .disks) == nil)
        #expect(try await world.load() == "This is a disk-only snapshot. Revert to it  offline using qemu-img")
        #expect(world.guest?.log == [])
    }

    @Test(
        "A disk that cannot be wound back puts the others back, and the guest goes on", arguments: ["create", "revert"])
    func rewindFails(_ method: String) async throws {
        let world = try await saved(withGuest: true)
        world.disk("d1").fail(method)
        #expect(try await world.load() == "\(method) was told to fail")
        #expect(world.guest?.log == ["stop", "cont"])
        #expect(contents(world) == [2, 2])
        #expect(world.leftovers == [])
    }

    @Test("A guest that cannot be stopped is not loaded")
    func stopFails() async throws {
        let world = try await saved(withGuest: true)
        world.guest?.at = { if $0 == "stop" { throw ColdframeError(.timedOut, "no answer") } }
        #expect(try await world.load() == "no answer")
        #expect(contents(world) == [2, 2])
        #expect(world.leftovers == [])
    }

    @Test("A state that does not load puts the disks back; the guest's memory is lost and it stays stopped")
    func loadFails() async throws {
        let world = try await saved(withGuest: true)
        world.guest?.loadFailure = ColdframeError(.peer, "Error -22 while loading VM state")
        let error = try await world.load()
        #expect(error?.hasPrefix("Error -22 while loading VM state. The disks are as before") == true)
        #expect(world.guest?.log == ["stop", "load", "conclude"])
        #expect(contents(world) == [2, 2])
        #expect(world.leftovers == ["the guest does not run"])
    }

    @Test("Disks of two moments: the guest stays stopped, and the journal knows")
    func undoFails() async throws {
        let world = try await saved(withGuest: true)
        world.disk("d1").fail("revert")
        world.disk("d0").fail("revert", call: 2)
        let error = try await world.load()
        #expect(error?.hasSuffix("The guest stays stopped: its disks are not of one moment") == true)
        #expect(world.guest?.log == ["stop"])
        #expect(world.journal.pending.count == 1)
        #expect(world.catalogue.sets.map(\.tag) == ["t"])
    }

    @Test("A guest that does not go on after all was loaded has its disks at the snapshot, and no undo")
    func contFails() async throws {
        let world = try await saved(withGuest: true)
        world.guest?.at = { if $0 == "cont" { throw ColdframeError(.peer, "no answer") } }
        #expect(try await world.load() == "Snapshot 't' is loaded, but the guest does not go on: no answer")
        #expect(contents(world) == [1, 1])
        #expect(world.leftovers == ["the guest does not run"])
    }

    @Test("What is in a node that the guest has left is not loaded, and the node not saved")
    func leftNode() async throws {
        let world = try await saved(withGuest: true)
        try await world.add("d2")
        world.guest?.disks[0] = GuestDisk(name: "d0", nodeName: "d2")
        for devices in [["d0", "d1"], ["d2", "d1"]] {
            let error = try await world.load(devices: devices)
            #expect(error?.hasPrefix("Snapshot 't' is in node 'd0', and the guest has gone on since") == true)
        }
        let error = try await world.save("u", devices: ["d0", "d1"])
        #expect(error?.hasPrefix("The guest's disk 'd0' is on node 'd2' now") == true)
        #expect(world.guest?.log == [])
        #expect(contents(world) == [2, 2])
        #expect(world.leftovers == [])
    }
}

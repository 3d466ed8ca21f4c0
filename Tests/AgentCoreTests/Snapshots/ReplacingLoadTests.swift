import ColdframeKit
import Testing

@testable import AgentCore

@AgentActor
@Suite("snapshot-load, way replace", .timeLimit(.minutes(1)))
struct ReplacingLoadTests {
    /// A world with tag `t` at content 1, and content 2 now; its guest as it is before the load.
    private func saved() async throws -> (World, FakeGuest) {
        let world = try await World(withGuest: true)
        for name in world.names { world.disk(name).content = 1 }
        #expect(try await world.save() == nil)
        for name in world.names { world.disk(name).content = 2 }
        let guest = try #require(world.guest)
        guest.log = []
        return (world, guest)
    }

    private func contents(_ world: World) -> [UInt64] { ["d0", "d1"].map { world.disk($0).content } }

    @Test("The state is proven before the guest is stopped, the disks are passed before it is committed")
    func order() async throws {
        let (world, old) = try await saved()
        #expect(try await world.load(way: .replace) == nil)
        #expect(old.log == ["replace", "loaded", "stop", "pass", "take place", "end old"])
        #expect(old.replacement?.state == old.ram)
        #expect(world.guest?.slot == 1 && world.guest?.log == ["cont"])
        #expect(contents(world) == [1, 1])
        #expect(world.leftovers == [])
    }

    @Test("A guest that stood still is replaced by one that does")
    func stoppedGuest() async throws {
        let (world, old) = try await saved()
        old.state = .stopped("paused")
        #expect(try await world.load(way: .replace) == nil)
        #expect(old.log == ["replace", "loaded", "pass", "take place", "end old"])
        #expect(world.guest?.log == [])
    }

    @Test("What speaks against it is said at once, and nothing is started")
    func blocked() async throws {
        let (world, old) = try await saved()
        old.replacementBlockers = ["One.", "Two."]
        #expect(try await world.load(way: .replace)?.contains("One. Two. Or use way 'in-place'") == true)
        #expect(old.log == [])
        #expect(world.leftovers == [])
    }

    @Test("A state that is damaged does not stop the guest")
    func damaged() async throws {
        let (world, old) = try await saved()
        world.disk("d0").damageState(of: "1")
        #expect(try await world.load(way: .replace)?.contains("its checksum is not the one of the save") == true)
        #expect(old.log == ["replace", "abandon"])
        #expect(world.guest === old && contents(world) == [2, 2])
        #expect(world.leftovers == [])
    }

    @Test(
        "A process that does not start or does not load leaves the guest as it was", arguments: ["replace", "loaded"])
    func newFails(_ step: String) async throws {
        let (world, old) = try await saved()
        old.at = { if $0 == step { throw ColdframeError(.peer, "no") } }
        #expect(try await world.load(way: .replace) == "no")
        #expect(old.log.last == (step == "replace" ? "replace" : "abandon"))
        #expect(!old.log.contains("stop"))
        #expect(world.guest === old && contents(world) == [2, 2])
        #expect(world.leftovers == [])
    }

    @Test(
        "A disk that cannot be wound back, or passed, puts all back, and the guest goes on",
        arguments: ["revert", "pass"])
    func swapFails(_ step: String) async throws {
        let (world, old) = try await saved()
        if step == "revert" {
            world.disk("d1").fail("revert")
        } else {
            old.passFailure = ColdframeError(.busy, "taken")
        }
        #expect(try await world.load(way: .replace) != nil)
        #expect(old.log.suffix(2) == ["cont", "abandon"])
        #expect(old.replacement?.hasDisks == false)
        #expect(world.guest === old && contents(world) == [2, 2])
        #expect(world.leftovers == [])
    }

    @Test("Disks of two moments: the guest stays stopped, and the journal names no second process any more")
    func undoFails() async throws {
        let (world, old) = try await saved()
        world.disk("d1").fail("revert")
        world.disk("d0").fail("revert", call: 2)
        #expect(try await world.load(way: .replace)?.hasSuffix("its disks are not of one moment") == true)
        #expect(old.log.suffix(2) == ["stop", "abandon"])
        #expect(world.journal.pending.count == 1 && world.journal.pending.first?.intent.replacement == nil)
    }

    @Test("A new process that does not go on is the guest all the same", arguments: ["cont", "end old"])
    func endFails(_ step: String) async throws {
        let (world, old) = try await saved()
        old.at = { if $0 == step { throw ColdframeError(.peer, "no answer") } }
        #expect(try await world.load(way: .replace)?.hasPrefix("Snapshot 't' is loaded, but ") == true)
        #expect(world.guest !== old && contents(world) == [1, 1])
        #expect(world.journal.pending.isEmpty)
    }

    @Test("Without a guest there is nothing to replace")
    func withoutGuest() async throws {
        let world = try await World()
        #expect(try await world.save() == nil)
        #expect(try await world.load(way: .replace)?.contains("this agent has none") == true)
    }
}

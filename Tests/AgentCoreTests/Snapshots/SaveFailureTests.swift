import ColdframeKit
import QMPWire
import Synchronization
import Testing

@testable import AgentCore

@AgentActor
@Suite("snapshot-save that fails or is cancelled leaves nothing", .timeLimit(.minutes(1)))
struct SaveFailureTests {
    @Test(
        "A call of an image that fails",
        arguments: [("create", 1), ("begin", 1), ("append", 1), ("attach", 1)], ["d0", "d1"])
    func failingCall(_ call: (method: String, number: Int), _ name: String) async throws {
        let world = try await World(withGuest: true)
        world.disk(name).fail(call.method, call: call.number)
        let error = try await world.save()
        // Only d0 takes the state.
        if call.method != "create", name == "d1" {
            #expect(error == nil)
            #expect(world.leftovers == [])
        } else {
            #expect(error == "\(call.method) was told to fail")
            #expect(world.traces() == [])
            #expect(world.guest?.state == .running)
            let again = try await world.save()
            #expect(again == nil)
        }
    }

    @Test("An image that takes no more before the guest has stopped ends the save, not the guest")
    func fullImageWhileStreaming() async throws {
        let world = try await World(withGuest: true)
        let guest = try #require(world.guest)
        // More than one buffer, so that an append comes while the stream is still open.
        guest.ram = [UInt8](repeating: 1, count: 12 << 20)
        world.disk("d0").fail("append")
        #expect(try await world.save() == "append was told to fail")
        #expect(guest.log.last == "abandon")
        #expect(world.traces() == [])
    }

    @Test("A step of the guest that fails", arguments: ["begin", "stopped", "finish"])
    func failingGuest(_ step: String) async throws {
        let world = try await World(withGuest: true)
        world.guest?.at = { if $0 == step { throw ColdframeError(.peer, "The guest ended") } }
        #expect(try await world.save(mode: .precopy)?.contains("The guest ended") == true)
        #expect(world.traces() == [])
    }

    @Test("A cancel while the guest does a step", arguments: ["begin", "stopped", "finish"])
    func cancelDuringStep(_ step: String) async throws {
        let world = try await World(withGuest: true)
        world.guest?.at = { if $0 == step { try await world.jobs.cancel(id: "j1") } }
        let id = try world.startSave()
        #expect(await world.end(id) == "Operation canceled")
        #expect(world.traces() == [])
    }

    @Test("A cancel while the save waits", arguments: ["stopped", "stream"])
    func cancelWhileWaiting(_ step: String) async throws {
        let world = try await World(withGuest: true)
        let guest = try #require(world.guest)
        guest.hang = step
        let id = try world.startSave()
        while !guest.log.contains(step == "stream" ? "release" : "begin live") {
            try await Task.sleep(nanoseconds: 500_000)
        }
        try await Task.sleep(nanoseconds: 5_000_000)
        try await world.jobs.cancel(id: id)
        #expect(await world.end(id) == "Operation canceled")
        #expect(guest.log.filter { $0 == "abandon" }.count == 1)
        #expect(world.traces() == [])
    }

    @Test(
        "A cancel while the disks are cut or the state is attached gives all or nothing",
        arguments: ["create", "attach"])
    func cancelInImage(_ method: String) async throws {
        let world = try await World(withGuest: true)
        let id = try world.startSave()
        let jobs = world.jobs
        world.disk("d0").before(method) {
            let done = Flag()
            Task { @AgentActor in
                try? await jobs.cancel(id: id)
                done.set()
            }
            while !done.isSet { Pause.briefly() }
        }
        let error = await world.end(id)
        if method == "create" {
            #expect(error == "Operation canceled")
            #expect(world.traces() == [])
        } else {
            #expect(error == nil)
            #expect(world.catalogue.set(tagged: "t")?.isComplete == true)
            #expect(world.leftovers == [])
        }
    }

    @Test("A cancel of a save of disks only")
    func cancelDisksOnly() async throws {
        let world = try await World()
        let id = try world.startSave()
        let jobs = world.jobs
        world.disk("d1").before("create") {
            let done = Flag()
            Task { @AgentActor in
                try? await jobs.cancel(id: id)
                done.set()
            }
            while !done.isSet { Pause.briefly() }
        }
        #expect(await world.end(id) == "Operation canceled")
        #expect(world.traces() == [])
    }

    @Test("What cannot be undone stays hidden, stays in the journal, and is told")
    func undoFails() async throws {
        let world = try await World()
        world.disk("d1").fail("create")
        world.disk("d0").fail("delete")
        #expect(
            try await world.save() == "create was told to fail; undoing the rest failed too: delete was told to fail")
        #expect(world.catalogue.set(tagged: "t") == nil)
        #expect(world.journal.pending.map(\.intent.tag) == ["t"])
        #expect(try await world.save("u")?.contains("was interrupted") == true)
        #expect(!(try world.graph.find(nodeOnly: "d0").block.gate.isClosed))
    }
}

/// Set once, on any thread.
final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    func set() { value.store(true, ordering: .releasing) }
    var isSet: Bool { value.load(ordering: .acquiring) }
}

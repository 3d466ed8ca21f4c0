import ColdframeKit
import Logging
import Testing

@testable import AgentCore

/// What the next agent does with a guest that has survived an operation on it and its disks.
@AgentActor
@Suite("Settlement of a guest that was taken over")
struct GuestSettlementTests {
    private func settle(_ world: World, _ guest: FakeGuest) async throws -> Journal {
        let journal = try Journal(path: world.folder + "/journal")
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let recovery = IntentRecovery(
            graph: world.graph, journal: journal, catalogue: world.catalogue, sets: world.sets, logger: logger)
        recovery.awaitsGuest = true
        await recovery.run()
        recovery.awaitsGuest = false
        await GuestSettlement(recovery: recovery, guest: guest).run()
        return journal
    }

    /// Two disks wound back from 2 to 1 with their undo, an intent at `step`, a guest that our own stop has left.
    private func interruptedLoad(
        at step: Journal.Step, rewound: Int = 2, wasRunning: Bool = true, outcome: InterruptedLoad
    ) async throws -> (World, FakeGuest) {
        let world = try await World(withGuest: true)
        let guest = try #require(world.guest)
        for name in world.names { world.disk(name).content = 1 }
        #expect(try await world.save() == nil)
        for name in world.names { world.disk(name).content = 2 }
        guest.log = []
        guest.loadOutcome = outcome
        let devices = try SnapshotDevices(names: world.names, graph: world.graph)
        let intent = Intent(
            uuid: "11111111-2222-3333-4444-555555555555", operation: .load, tag: "t", images: devices.intentImages,
            guestWasRunning: wasRunning)
        try world.journal.record(.begin, intent)
        for node in devices.nodes.prefix(rewound) {
            let bearer = try node.snapshotBearer()
            _ = try bearer.createSnapshot(
                SnapshotRequest(name: intent.undoName, dateSeconds: 1, dateNanoseconds: 0))
            let target = try #require(bearer.snapshots.first { $0.name == "t" })
            try bearer.revert(toSnapshot: target.id)
        }
        if step != .begin { try world.journal.record(step, intent) }
        guest.state = .stopped("paused")
        return (world, guest)
    }

    private func contents(_ world: World) -> [UInt64] { world.names.map { world.disk($0).content } }

    @Test("Before anything is fed the disks go back and the guest goes on", arguments: [0, 1, 2])
    func begun(rewound: Int) async throws {
        let (world, guest) = try await interruptedLoad(at: .begin, rewound: rewound, outcome: .notBegun)
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(contents(world) == [2, 2])
        #expect(guest.state == .running)
        #expect(world.disk("d0").tags == ["t"])
    }

    @Test("Wound back and not fed: the same")
    func notFed() async throws {
        let (world, guest) = try await interruptedLoad(at: .cut, outcome: .notBegun)
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(contents(world) == [2, 2])
        #expect(guest.state == .running)
    }

    @Test("Fed: the load stands", arguments: [Journal.Step.cut, .committed])
    func fed(step: Journal.Step) async throws {
        let (world, guest) = try await interruptedLoad(at: step, outcome: .loaded)
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(contents(world) == [1, 1])
        #expect(guest.state == .running)
        #expect(world.disk("d1").tags == ["t"])
        #expect(guest.log.contains("conclude"))
    }

    @Test("A feed that failed: the disks go back, the guest stays stopped")
    func failed() async throws {
        let (world, guest) = try await interruptedLoad(at: .cut, outcome: .failed("why"))
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(contents(world) == [2, 2])
        #expect(guest.state != .running)
        #expect(guest.isMemoryLost)
    }

    @Test("Memory that was known to be lost is not asked about again")
    func lost() async throws {
        let (world, guest) = try await interruptedLoad(at: .lost, outcome: .notBegun)
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(contents(world) == [2, 2])
        #expect(guest.isMemoryLost)
        #expect(!guest.log.contains("cont"))
    }

    @Test("A guest that stood still before stays so", arguments: [InterruptedLoad.loaded, .notBegun])
    func stoppedBefore(outcome: InterruptedLoad) async throws {
        let (world, guest) = try await interruptedLoad(at: .cut, wasRunning: false, outcome: outcome)
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(guest.state != .running)
        #expect(!guest.isMemoryLost)
    }

    @Test("A guest that somebody has made run is not touched")
    func running() async throws {
        let (world, guest) = try await interruptedLoad(at: .cut, outcome: .notBegun)
        guest.state = .running
        #expect(try await settle(world, guest).pending.count == 1)
        #expect(contents(world) == [1, 1])
    }

    @Test("A guest's own stop is its own")
    func ownStop() async throws {
        let (world, guest) = try await interruptedLoad(at: .begin, outcome: .notBegun)
        guest.state = .stopped("io-error")
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(guest.state == .stopped("io-error"))
    }

    @Test("What fails on the way stays pending, and is done the next time")
    func again() async throws {
        let (world, guest) = try await interruptedLoad(at: .cut, outcome: .notBegun)
        world.disk("d1").fail("revert")
        #expect(try await settle(world, guest).pending.count == 1)
        #expect(guest.state != .running)
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(contents(world) == [2, 2])
        #expect(guest.state == .running)
    }

    @Test("An agent that dies when the guest goes on again has left nothing to doubt")
    func killedLast() async throws {
        let (world, guest) = try await interruptedLoad(at: .cut, outcome: .notBegun)
        guest.at = { step in
            if step == "cont" { throw ColdframeError(.peer, "killed") }
        }
        #expect(try await settle(world, guest).pending.map(\.step) == [.begin])
        guest.at = { _ in }
        guest.state = .running
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(contents(world) == [2, 2])
    }

    @Test("A save that was broken off leaves nothing, and the guest goes on")
    func save() async throws {
        let world = try await World(withGuest: true)
        let guest = try #require(world.guest)
        let devices = try SnapshotDevices(names: world.names, graph: world.graph)
        let plan = SavePlan(tag: "t", way: .precopy, devices: devices, guestWasRunning: true)
        try world.journal.record(.begin, plan.intent)
        _ = try devices.nodes[0].snapshotBearer().createSnapshot(plan.request(idFloor: 0))
        guest.state = .stopped("postmigrate")
        #expect(try await settle(world, guest).pending.isEmpty)
        #expect(world.disk("d0").tags == [])
        #expect(guest.state == .running)
    }
}

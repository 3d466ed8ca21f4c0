import ColdframeKit
import Testing

@testable import AgentCore

@AgentActor
@Suite("Snapshot lane", .timeLimit(.minutes(1)))
struct SnapshotLaneTests {
    /// Takes the lane until it is let go.
    @AgentActor
    private final class Holder {
        private var continuation: CheckedContinuation<Void, Never>?
        private var isDone = false
        var isHolding: Bool { continuation != nil }
        func hold() async { if !isDone { await withCheckedContinuation { continuation = $0 } } }
        func letGo() {
            isDone = true
            continuation?.resume()
            continuation = nil
        }
    }

    @Test("First come, first served; nobody overtakes")
    func order() async throws {
        let lane = SnapshotLane()
        let holder = Holder()
        var log: [Int] = []
        let first = Task { try await lane.run { await holder.hold() } }
        await Task.yield()
        var others: [Task<Void, any Error>] = []
        for number in 1...5 {
            others.append(
                Task {
                    try await lane.run {
                        log.append(number)
                        await Task.yield()
                    }
                })
            try await Task.sleep(nanoseconds: 1_000_000)
        }
        holder.letGo()
        try await first.value
        for other in others { try await other.value }
        #expect(log == [1, 2, 3, 4, 5])
    }

    /// Somebody has the lane; the saves `a` and `b` wait for it in this order.
    private func twoSavesWait(
        in world: World, behind holder: Holder
    ) async throws -> (first: Task<Void, any Error>, a: String, b: String) {
        let first = Task { try await world.lane.run { await holder.hold() } }
        while !holder.isHolding { await Task.yield() }
        let a = try world.startSave("a")
        while world.lane.waitingCount < 1 { await Task.yield() }
        let b = try world.startSave("b")
        while world.lane.waitingCount < 2 { await Task.yield() }
        return (first, a, b)
    }

    @Test("A job that is cancelled while it waits goes at once; the next one still gets its turn")
    func cancelWhileWaiting() async throws {
        let world = try await World()
        let holder = Holder()
        let (first, waiting, next) = try await twoSavesWait(in: world, behind: holder)
        try await world.jobs.cancel(id: waiting)
        #expect(await world.end(waiting) == "Operation canceled")
        holder.letGo()
        try await first.value
        #expect(await world.end(next) == nil)
        #expect(world.disk("d0").tags == ["b"])
        #expect(world.leftovers == [])
    }

    @Test("A job that is paused while it waits lets the next one pass, and has its turn when it goes on")
    func pauseWhileWaiting() async throws {
        let world = try await World()
        let holder = Holder()
        let (first, waiting, next) = try await twoSavesWait(in: world, behind: holder)
        try world.jobs.pause(id: waiting)
        holder.letGo()
        try await first.value
        #expect(await world.end(next) == nil)
        #expect(world.disk("d0").tags == ["b"])
        try world.jobs.resume(id: waiting)
        #expect(await world.end(waiting) == nil)
        #expect(world.disk("d0").tags == ["b", "a"])
        #expect(world.leftovers == [])
    }

    @Test("An operation that throws gives the lane back")
    func throwing() async throws {
        let lane = SnapshotLane()
        await #expect(throws: ColdframeError.self) { try await lane.run { throw ColdframeError(.io, "x") } }
        #expect(try await lane.run { 7 } == 7)
        #expect(lane.jobID == nil)
    }
}

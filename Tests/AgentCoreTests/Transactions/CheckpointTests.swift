import ColdframeKit
import QAPI
import Testing

@testable import AgentCore

/// A snapshot of the guest as one action of a transaction: bitmaps and backups share its moment.
@AgentActor
@Suite("Checkpoints")
struct CheckpointTests {
    private func world() async throws -> World {
        let world = try await World(disks: 2, withGuest: true)
        try await world.add("copy")
        let bitmap = DirtyBitmap(name: "old", granularity: 65536, diskByteCount: 1 << 20)
        bitmap.updateBits { $0.set(at: 0, byteCount: 65536) }
        try world.graph.find(nodeOnly: "d0").block.bitmaps.insert(bitmap)
        return world
    }

    private func save() -> TransactionAction {
        TransactionAction(
            type: "snapshot-save",
            branch: SnapshotSaveArguments(jobId: "s", tag: "t", vmstate: "d0", devices: ["d0", "d1"]))
    }

    private func start(_ world: World, _ more: [TransactionAction] = []) async throws {
        let actions = [
            save(),
            TransactionAction(type: "block-dirty-bitmap-add", branch: BlockDirtyBitmapAdd(node: "d0", name: "new")),
            TransactionAction(type: "block-dirty-bitmap-clear", branch: BlockDirtyBitmap(node: "d0", name: "old")),
            TransactionAction(
                type: "blockdev-backup",
                branch: BlockdevBackup(jobId: "k", device: "d1", sync: .full, autoDismiss: false, target: "copy")),
        ]
        try await TransactionCoordinator(context: world.context, jobs: world.jobs, lane: world.lane).run(
            .init(actions: actions + more))
    }

    private func states(_ world: World, _ job: String) -> [String] {
        world.events("JOB_STATUS_CHANGE").filter { $0["id"]?.stringValue == job }.compactMap {
            $0["status"]?.stringValue
        }
    }

    private func bitmaps(_ world: World) throws -> [String: UInt64] {
        let all = try world.graph.find(nodeOnly: "d0").block.bitmaps.all
        return Dictionary(uniqueKeysWithValues: all.map { ($0.name ?? "", $0.dirtyByteCount) })
    }

    @Test("The bitmaps are cut with the disks, and the backup starts when the set is whole")
    func success() async throws {
        let world = try await world()
        try await start(world)
        #expect(await world.end("s") == nil)
        #expect(try bitmaps(world) == ["old": 0, "new": 0])
        #expect(await world.end("k") == nil)
        #expect(states(world, "k").prefix(2) == ["created", "running"])
        #expect(world.disk("d0").tags == ["t"] && world.disk("d1").tags == ["t"])
        #expect(world.leftovers.isEmpty, "\(world.leftovers)")
    }

    @Test("If the capture fails the bitmaps are as before, with what was written since, and no job starts")
    func failure() async throws {
        let world = try await world()
        let node = try world.graph.find(nodeOnly: "d0")
        world.disk("d0").fail("attach")
        world.disk("d0").before("attach") {
            // The guest went on while its state was stored.
            try? [UInt8](repeating: 1, count: 512).withUnsafeBytes { try node.block.write($0, at: 3 << 16) }
        }
        try await start(world)
        #expect(await world.end("s")?.contains("attach was told to fail") == true)
        #expect(try bitmaps(world) == ["old": 2 << 16])
        #expect(states(world, "k") == ["created", "aborting", "concluded", "null"])
        #expect(world.jobs.information.isEmpty)
        #expect(world.leftovers.isEmpty, "\(world.leftovers)")
    }

    @Test("An action that fails undoes the snapshot")
    func companionFails() async throws {
        let world = try await world()
        try await start(world, [TransactionAction(type: "abort", branch: Abort())])
        #expect(await world.end("s")?.contains("Abort action") == true)
        #expect(try bitmaps(world) == ["old": 1 << 16])
        #expect(world.traces().isEmpty, "\(world.traces())")
    }

    @Test("What cannot share a moment is refused")
    func refusals() async throws {
        let world = try await world()
        let snapshot = TransactionAction(
            type: "blockdev-snapshot-internal-sync", branch: BlockdevSnapshotInternal(device: "copy", name: "x"))
        #expect(await refusal { try await start(world, [snapshot]) }?.contains("cannot be in one transaction") == true)
        #expect(await refusal { try await start(world, [save()]) }?.contains("one moment") == true)
        #expect(world.jobs.information.isEmpty)
    }

    @Test("A delete starts when its transaction is committed")
    func delete() async throws {
        let world = try await World(disks: 2)
        #expect(try await world.save() == nil)
        let delete = TransactionAction(
            type: "snapshot-delete", branch: SnapshotDeleteArguments(jobId: "d", tag: "t", devices: ["d0", "d1"]))
        let coordinator = TransactionCoordinator(context: world.context, jobs: world.jobs, lane: world.lane)
        let failing = [delete, TransactionAction(type: "abort", branch: Abort())]
        #expect(await refusal { try await coordinator.run(.init(actions: failing)) } != nil)
        #expect(world.disk("d0").tags == ["t"] && world.jobs.information.isEmpty)
        try await coordinator.run(.init(actions: [delete]))
        #expect(await world.end("d") == nil)
        #expect(world.disk("d0").tags.isEmpty && world.disk("d1").tags.isEmpty)
    }
}

import ColdframeKit
import LinuxSystem
import QAPI
import Testing

@testable import AgentCore

/// Formats that store bitmaps, as the core uses them.
@AgentActor
@Suite("Stored bitmaps")
struct StoredBitmapTests {
    @Test("What an image holds is there when it is opened; what is persistent is handed back when it is closed")
    func loadAndStore() async throws {
        let world = try await World(disks: 0)
        let stored = DirtyBitmap(name: "old", granularity: 65536, diskByteCount: 1 << 20)
        stored.update { $0.isPersistent = true }
        stored.updateBits { $0.set(at: 0, byteCount: 1) }
        let disk = BitmapDisk("n", stored: [stored])
        world.factory.put(disk, as: "n")
        try await world.add("n")
        let bitmaps = BitmapRegistry(graph: world.graph)
        #expect(try bitmaps.find(node: "n", name: "old").bitmap.dirtyByteCount == 65536)
        try await bitmaps.add(BlockDirtyBitmapAdd(node: "n", name: "new", persistent: true))
        try await bitmaps.add(BlockDirtyBitmapAdd(node: "n", name: "transient"))
        try await world.graph.remove(nodeName: "n")
        #expect(disk.storedNames == ["old", "new"])
    }

    @Test("A removed bitmap is taken out of the image at once; a transaction that fails has it stored again at the end")
    func removal() async throws {
        let world = try await World(disks: 0)
        let disk = BitmapDisk("n")
        world.factory.put(disk, as: "n")
        try await world.add("n")
        let bitmaps = BitmapRegistry(graph: world.graph)
        for name in ["a", "b"] {
            try await bitmaps.add(BlockDirtyBitmapAdd(node: "n", name: name, persistent: true))
        }
        try await bitmaps.remove(node: "n", name: "a")
        #expect(disk.removedNames == ["a"])
        let failing = try TransactionArguments(
            QAPIInput([
                "actions": [
                    ["type": "block-dirty-bitmap-remove", "data": ["node": "n", "name": "b"]],
                    ["type": "abort", "data": [:]],
                ]
            ]))
        let refused = await refusal {
            try await TransactionCoordinator(context: world.context, jobs: world.jobs, lane: world.lane).run(failing)
        }
        #expect(refused == "Transaction aborted using Abort action")
        #expect(try !bitmaps.find(node: "n", name: "b").bitmap.state.isBusy)
        try await world.graph.remove(nodeName: "n")
        #expect(disk.storedNames == ["b"])
    }

    @Test("An image that cannot store one refuses it; one that has no room for bitmaps says so as QEMU does")
    func refusals() async throws {
        let world = try await World(disks: 1)
        let disk = BitmapDisk("n", refuses: true)
        world.factory.put(disk, as: "n")
        try await world.add("n")
        let bitmaps = BitmapRegistry(graph: world.graph)
        let full = await refusal { try await bitmaps.add(BlockDirtyBitmapAdd(node: "n", name: "b", persistent: true)) }
        #expect(full == "Can't make bitmap 'b' persistent in 'n': no room")
        let none = await refusal { try await bitmaps.add(BlockDirtyBitmapAdd(node: "d0", name: "b", persistent: true)) }
        #expect(none == "Can't store persistent bitmaps to d0: Operation not supported")
    }
}

/// A disk that keeps bitmaps.
private final class BitmapDisk: FakeDisk, BitmapBearing, @unchecked Sendable {
    private let stored: [DirtyBitmap]
    private let refuses: Bool
    private let names = Locked<(stored: [String], removed: [String])>(([], []))

    init(_ name: String, stored: [DirtyBitmap] = [], refuses: Bool = false) {
        self.stored = stored
        self.refuses = refuses
        super.init(name)
    }

    var storedNames: [String] { names.withLock { $0.stored } }
    var removedNames: [String] { names.withLock { $0.removed } }

    func loadBitmaps() throws(ColdframeError) -> [DirtyBitmap] { stored }
    func checkCanStoreBitmap(
        name: String, granularity: UInt32, diskByteCount: UInt64, beside others: [String]
    ) throws(ColdframeError) {
        if refuses { throw ColdframeError(.unsupported, "no room") }
    }
    func storeBitmaps(_ bitmaps: [DirtyBitmap]) throws(ColdframeError) {
        names.withLock { $0.stored = bitmaps.compactMap(\.name) }
    }
    func removeStoredBitmap(name: String) throws(ColdframeError) { names.withLock { $0.removed.append(name) } }
}

import ColdframeKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// A disk and its snapshots as plain arrays: what an image must hold after the same operations.
struct ImageModel {
    struct Snapshot {
        var disk: [UInt8]
        var state: [UInt8]
    }
    var disk: [UInt8]
    var snapshots: [String: Snapshot] = [:]
    let clusterByteCount: Int
    /// Images with an external data file have none.
    var hasSnapshots = true
    /// A refcount may be too narrow for one more snapshot, which is then refused.
    var hasNarrowRefcounts = false
    /// Version 2 cannot be resized with snapshots, and has no bitmaps.
    var isOld = false
    /// Length of the backing file; 0 without one.
    var backingByteCount = 0
    /// Persistent bitmaps, which note every write; nil for images that are not to have any.
    var bitmaps: [String: DirtyBits]?

    mutating func zero(_ range: Range<Int>) {
        for index in range { disk[index] = 0 }
    }

    /// Only whole clusters are given up.
    mutating func discard(_ range: Range<Int>) {
        let start = (range.lowerBound + clusterByteCount - 1) / clusterByteCount * clusterByteCount
        let end = range.upperBound == disk.count ? disk.count : range.upperBound / clusterByteCount * clusterByteCount
        // An empty entry of version 2 would show the backing file.
        if isOld, start < backingByteCount { return }
        if start < end { zero(start..<end) }
    }
}

/// One operation of a random sequence.
enum ImageOperation: Sendable {
    case write(Range<Int>, seed: UInt64)
    case zero(Range<Int>, WriteFlags)
    case discard(Range<Int>)
    case flush
    case reopen
    case create(state: Int?)
    case delete(choice: Int)
    case revert(choice: Int)
    case abandonState(Int)
    case resize(Int)
    case writeCompressed(Range<Int>, seed: UInt64)
    case addBitmap(granularityBits: Int)
    case removeBitmap(choice: Int)

    static func random(_ model: ImageModel, maximum: Int, _ generator: inout SeededGenerator) -> ImageOperation {
        let diskByteCount = model.disk.count
        let maximum = min(maximum, diskByteCount)
        func range() -> Range<Int> {
            let offset = Int.random(in: 0..<diskByteCount, using: &generator)
            let count = Int.random(in: 1...min(maximum, diskByteCount - offset), using: &generator)
            // Half of the ranges are aligned, as guests' mostly are.
            guard Bool.random(using: &generator) else { return offset..<offset + count }
            let start = offset & ~4095
            return start..<min(diskByteCount, start + (count + 4095) & ~4095)
        }
        switch Int.random(in: 0..<27, using: &generator) {
        case 0..<8: return .write(range(), seed: generator.next())
        case 8: return .zero(range(), [])
        case 9: return .zero(range(), .mayUnmap)
        case 10, 11: return .discard(range())
        case 12: return .flush
        case 13: return .reopen
        case 14, 15: return .create(state: nil)
        case 16: return .create(state: Int.random(in: 1...maximum, using: &generator))
        case 17: return .delete(choice: Int.random(in: 0..<1000, using: &generator))
        case 18: return .revert(choice: Int.random(in: 0..<1000, using: &generator))
        case 19: return .abandonState(Int.random(in: 1...maximum, using: &generator))
        case 24, 25: return .addBitmap(granularityBits: Int.random(in: 9...17, using: &generator))
        case 26: return .removeBitmap(choice: Int.random(in: 0..<1000, using: &generator))
        case 20, 21: return .resize(512 * Int.random(in: 1...max(2, diskByteCount / 256), using: &generator))
        default:
            let range = range()
            let start = range.lowerBound / model.clusterByteCount * model.clusterByteCount
            let end = (range.upperBound + model.clusterByteCount - 1) / model.clusterByteCount * model.clusterByteCount
            return .writeCompressed(start..<min(end, diskByteCount), seed: generator.next())
        }
    }
}

extension ImageModel {
    /// Applies an operation to the image and to the model. `reopen` is called for a new driver where one is needed.
    mutating func apply(
        _ operation: ImageOperation, to driver: inout Qcow2Driver, reopen: (Qcow2Driver) throws -> Qcow2Driver
    ) throws {
        noteWrite(operation)
        switch operation {
        case .write(let range, let seed):
            let bytes = pattern(range.count, seed)
            try driver.writeBytes(bytes, at: UInt64(range.lowerBound))
            disk.replaceSubrange(range, with: bytes)
        case .zero(let range, let flags):
            try driver.writeZeroes(at: UInt64(range.lowerBound), byteCount: UInt64(range.count), flags: flags)
            zero(range)
        case .discard(let range):
            try driver.discard(at: UInt64(range.lowerBound), byteCount: UInt64(range.count))
            discard(range)
        case .flush: try driver.flush()
        case .reopen: try reopenWithBitmaps(&driver, reopen)
        case .addBitmap(let bits):
            guard let count = bitmaps?.count, count < 4 else { return }
            bitmaps?["bitmap-\(SystemClock.monotonicNanoseconds())"] = DirtyBits(
                diskByteCount: UInt64(disk.count), granularity: 1 << UInt32(bits))
        case .removeBitmap(let choice):
            guard let names = bitmaps?.keys.sorted(), !names.isEmpty else { return }
            bitmaps?[names[choice % names.count]] = nil
            try driver.removeStoredBitmap(name: names[choice % names.count])
        case .create(let stateByteCount):
            if hasSnapshots { try createSnapshot(stateByteCount ?? 0, driver) }
        case .delete(let choice):
            guard let id = chosen(choice) else { return }
            try driver.deleteSnapshot(id: id)
            snapshots[id] = nil
        case .revert(let choice):
            guard let id = chosen(choice), let snapshot = snapshots[id] else { return }
            if try isTooNarrow({ try driver.revert(toSnapshot: id) }) { return }
            disk = snapshot.disk
            resizeBitmaps()
        case .abandonState(let byteCount):
            guard hasSnapshots else { return }
            let writer = try driver.beginVMState()
            try pattern(byteCount, 1).withUnsafeBytes { try writer.append($0) }
            try writer.abandon()
        case .resize(let byteCount):
            if isOld, !snapshots.isEmpty { return }
            try driver.resize(toByteCount: UInt64(byteCount))
            disk = Array(disk.prefix(byteCount))
            disk.append(contentsOf: repeatElement(0, count: byteCount - disk.count))
            resizeBitmaps()
        case .writeCompressed(let range, let seed):
            guard !driver.geometry.hasExternalData else { return }
            // Half of the bytes are equal, so that most clusters become smaller.
            let bytes = pattern(range.count, seed).enumerated().map { $0.offset & 64 == 0 ? $0.element : 7 }
            try bytes.withUnsafeBytes { try driver.writeCompressed($0, at: UInt64(range.lowerBound)) }
            disk.replaceSubrange(range, with: bytes)
        }
    }

    private mutating func createSnapshot(_ stateByteCount: Int, _ driver: Qcow2Driver) throws {
        let state = pattern(stateByteCount, UInt64(stateByteCount))
        let writer = state.isEmpty ? nil : try driver.beginVMState()
        let name = "tag-\(snapshots.count)"
        var made: [SnapshotInfo] = []
        if try isTooNarrow({ made.append(try driver.createSnapshot(request(name))) }) {
            try writer?.abandon()
            return
        }
        snapshots[made[0].id] = Snapshot(disk: disk, state: state)
        guard let writer else { return }
        try state.withUnsafeBytes { try writer.append($0) }
        _ = try writer.attach(toSnapshot: made[0].id, annotation: [1], guestClockNanoseconds: 1)
    }

    /// Whether `body` failed for lack of room in a refcount.
    private func isTooNarrow(_ body: () throws -> Void) throws -> Bool {
        do {
            try body()
            return false
        } catch {
            if hasNarrowRefcounts { return true }
            throw error
        }
    }

    private func chosen(_ choice: Int) -> String? {
        let ids = snapshots.keys.sorted()
        return ids.isEmpty ? nil : ids[choice % ids.count]
    }

    /// What the driver reads equals the model, snapshots and states included.
    func expectEqual(_ driver: Qcow2Driver, _ note: String) throws {
        #expect(try driver.readBytes(0, disk.count) == disk, "disk \(note)")
        #expect(Set(driver.snapshots.map(\.id)) == Set(snapshots.keys), "\(note)")
        for (id, snapshot) in snapshots {
            #expect(
                try driver.openSnapshot(id: id).readBytes(0, snapshot.disk.count) == snapshot.disk,
                "snapshot \(id) \(note)")
            guard !snapshot.state.isEmpty else { continue }
            let reader = try driver.openVMState(ofSnapshot: id)
            var bytes = [UInt8](repeating: 0, count: snapshot.state.count)
            try bytes.withUnsafeMutableBytes { try reader.read(into: $0, at: 0) }
            #expect(bytes == snapshot.state, "state \(id) \(note)")
        }
    }
}

extension ImageModel {
    /// As a node notes it in its bitmaps.
    private mutating func noteWrite(_ operation: ImageOperation) {
        switch operation {
        case .write(let range, _), .zero(let range, _), .discard(let range), .writeCompressed(let range, _):
            for name in (bitmaps ?? [:]).keys {
                bitmaps?[name]?.set(at: UInt64(range.lowerBound), byteCount: UInt64(range.count))
            }
        default: break
        }
    }

    private mutating func resizeBitmaps() {
        for name in (bitmaps ?? [:]).keys { bitmaps?[name]?.resize(toDiskByteCount: UInt64(disk.count)) }
    }

    /// Stores the bitmaps, closes and opens the image, and compares what it has with what there was.
    private func reopenWithBitmaps(
        _ driver: inout Qcow2Driver, _ reopen: (Qcow2Driver) throws -> Qcow2Driver
    ) throws {
        guard let bitmaps else {
            driver = try reopen(driver)
            return
        }
        try storeBitmaps(in: driver)
        driver = try reopen(driver)
        let loaded = try driver.loadBitmaps()
        #expect(Set(loaded.compactMap(\.name)) == Set(bitmaps.keys))
        for bitmap in loaded {
            #expect(!bitmap.state.isInconsistent)
            #expect(bitmap.name.flatMap { bitmaps[$0] } == bitmap.bits)
        }
    }

    func storeBitmaps(in driver: Qcow2Driver) throws {
        try driver.storeBitmaps(
            (bitmaps ?? [:]).map { name, bits in
                var state = DirtyBitmap.State(name: name)
                state.isPersistent = true
                return DirtyBitmap(bits: bits, state: state)
            })
    }
}

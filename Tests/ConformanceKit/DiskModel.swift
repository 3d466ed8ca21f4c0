import ColdframeKit
import LinuxSystem

/// A disk and its snapshots as plain arrays: what an image must hold after the same operations.
public struct DiskModel: Sendable {
    public struct Snapshot: Sendable, Equatable {
        public var disk: [UInt8]
        public var state: [UInt8]
    }
    public var disk: [UInt8]
    public var snapshots: [String: Snapshot] = [:]

    public init(byteCount: Int) { disk = [UInt8](repeating: 0, count: byteCount) }
}

/// One operation of a sequence. Those that a driver has no capability for are left out.
public enum DiskOperation: Sendable {
    case write(Range<Int>, seed: UInt64)
    case zero(Range<Int>, WriteFlags)
    case discard(Range<Int>)
    case flush
    /// Closes the image and opens it again.
    case reopen
    /// A snapshot, with a state of so many bytes if given.
    case create(state: Int?)
    case delete(choice: Int)
    case revert(choice: Int)
    case abandonState(Int)
    case resize(Int)

    public static func random(byteCount: Int, maximum: Int, _ generator: inout SeededGenerator) -> DiskOperation {
        func range() -> Range<Int> {
            let offset = Int.random(in: 0..<byteCount, using: &generator)
            let count = Int.random(in: 1...min(maximum, byteCount - offset), using: &generator)
            // Half of the ranges are aligned, as guests' mostly are.
            guard Bool.random(using: &generator) else { return offset..<offset + count }
            let start = offset & ~4095
            return start..<min(byteCount, start + (count + 4095) & ~4095)
        }
        switch Int.random(in: 0..<21, using: &generator) {
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
        case 19: return .resize(512 * Int.random(in: 1...(byteCount / 512 + 64), using: &generator))
        default: return .abandonState(Int.random(in: 1...maximum, using: &generator))
        }
    }
}

extension DiskModel {
    /// Applies an operation to the image and to the model. `reopen` gives a new driver for the same image.
    public mutating func apply(
        _ operation: DiskOperation, to driver: inout any BlockDriver,
        reopen: (any BlockDriver) throws -> any BlockDriver
    ) throws {
        switch operation {
        case .write(let wanted, let seed):
            let range = wanted.clamped(to: 0..<disk.count)
            let bytes = SeededGenerator.bytes(range.count, seed: seed)
            try driver.writeBytes(bytes, at: UInt64(range.lowerBound))
            disk.replaceSubrange(range, with: bytes)
        case .zero(let wanted, let flags):
            let range = wanted.clamped(to: 0..<disk.count)
            try driver.writeZeroes(at: UInt64(range.lowerBound), byteCount: UInt64(range.count), flags: flags)
            disk.replaceSubrange(range, with: repeatElement(0, count: range.count))
        case .discard(let wanted):
            let range = wanted.clamped(to: 0..<disk.count)
            try driver.discard(at: UInt64(range.lowerBound), byteCount: UInt64(range.count))
            try takeOver(range, from: driver)
        case .flush: try driver.flush()
        case .reopen: driver = try reopen(driver)
        case .create(let stateByteCount): try create(stateByteCount, driver)
        case .delete(let choice):
            guard let bearer = driver as? any SnapshotBearing, let id = chosen(choice) else { return }
            try bearer.deleteSnapshot(id: id)
            snapshots[id] = nil
        case .revert(let choice):
            guard let bearer = driver as? any SnapshotBearing, let id = chosen(choice), let snapshot = snapshots[id]
            else { return }
            try bearer.revert(toSnapshot: id)
            disk = snapshot.disk
        case .abandonState(let byteCount):
            guard let bearer = driver as? any VMStateBearing else { return }
            let writer = try bearer.beginVMState()
            try SeededGenerator.bytes(byteCount, seed: 1).withUnsafeBytes { try writer.append($0) }
            try writer.abandon()
        case .resize(let byteCount):
            guard let resizable = driver as? any Resizable else { return }
            try resizable.resize(toByteCount: UInt64(byteCount))
            disk = Array(disk.prefix(byteCount)) + repeatElement(0, count: max(0, byteCount - disk.count))
        }
    }

    /// What was discarded reads as before or as zeros, byte by byte, and goes on doing so.
    private mutating func takeOver(_ range: Range<Int>, from driver: any BlockDriver) throws {
        let found = try driver.readBytes(UInt64(range.lowerBound), range.count)
        for (index, byte) in zip(range, found) {
            guard byte == 0 || byte == disk[index] else {
                throw ColdframeError(.corrupt, "byte \(index) is neither zero nor what it was after a discard")
            }
            disk[index] = byte
        }
    }

    private mutating func create(_ stateByteCount: Int?, _ driver: any BlockDriver) throws {
        guard let bearer = driver as? any SnapshotBearing else { return }
        let state = stateByteCount.map { SeededGenerator.bytes($0, seed: UInt64($0)) } ?? []
        let writer = state.isEmpty ? nil : try (driver as? any VMStateBearing)?.beginVMState()
        var request = SnapshotRequest(name: "tag-\(snapshots.count)-\(disk.count)", dateSeconds: 1, dateNanoseconds: 2)
        request.annotation = [9, 8, 7]
        do {
            let info = try bearer.createSnapshot(request)
            snapshots[info.id] = Snapshot(disk: disk, state: [])
            guard let writer else { return }
            // In two parts, so that a part of a cluster is left between them.
            try state.withUnsafeBytes { bytes in
                let half = bytes.count / 2
                try writer.append(UnsafeRawBufferPointer(rebasing: bytes[..<half]))
                try writer.append(UnsafeRawBufferPointer(rebasing: bytes[half...]))
            }
            _ = try writer.attach(toSnapshot: info.id, annotation: [1], guestClockNanoseconds: 1)
            snapshots[info.id]?.state = state
        } catch {
            try? writer?.abandon()
            throw error
        }
    }

    private func chosen(_ choice: Int) -> String? {
        let ids = snapshots.keys.sorted()
        return ids.isEmpty ? nil : ids[choice % ids.count]
    }

    /// What differs between the driver and the model, snapshots and states included; nil if nothing does.
    public func difference(from driver: any BlockDriver) throws -> String? {
        if driver.byteCount != UInt64(disk.count) { return "size \(driver.byteCount) instead of \(disk.count)" }
        if let found = Self.firstDifference(try driver.readBytes(0, disk.count), disk) { return "disk at \(found)" }
        return try snapshotDifference(from: driver)
    }

    /// The same of the snapshots alone.
    public func snapshotDifference(from driver: any BlockDriver) throws -> String? {
        guard let bearer = driver as? any SnapshotBearing else { return nil }
        let ids = Set(bearer.snapshots.map(\.id))
        guard ids == Set(snapshots.keys) else {
            return "snapshots \(ids.sorted()) instead of \(snapshots.keys.sorted())"
        }
        for (id, snapshot) in snapshots {
            let disk = try bearer.openSnapshot(id: id)
            guard disk.byteCount == UInt64(snapshot.disk.count) else { return "size of snapshot \(id)" }
            if let found = Self.firstDifference(try disk.readBytes(0, snapshot.disk.count), snapshot.disk) {
                return "snapshot \(id) at \(found)"
            }
            try disk.close()
            guard !snapshot.state.isEmpty, let bearer = driver as? any VMStateBearing else { continue }
            let reader = try bearer.openVMState(ofSnapshot: id)
            guard reader.byteCount == UInt64(snapshot.state.count) else { return "size of the state of \(id)" }
            var bytes = [UInt8](repeating: 0, count: snapshot.state.count)
            try bytes.withUnsafeMutableBytes { try reader.read(into: $0, at: 0) }
            if let found = Self.firstDifference(bytes, snapshot.state) { return "state of \(id) at \(found)" }
        }
        return nil
    }

    static func firstDifference(_ a: [UInt8], _ b: [UInt8]) -> Int? {
        a == b ? nil : zip(a, b).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? min(a.count, b.count)
    }
}

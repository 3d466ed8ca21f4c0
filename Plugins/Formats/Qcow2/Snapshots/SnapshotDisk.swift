import ColdframeKit
import QMPWire

/// The disk of a snapshot, read-only. Valid while the snapshot exists.
///
/// Its tables and clusters are not rewritten in that time, so it has a cache of its own and takes no part in the
/// active disk's locks.
final class SnapshotDisk: ReadOnlyDriver {
    let driverName = "qcow2"
    let byteCount: UInt64
    let threadModel = ThreadModel.parallel
    let displayFilename: String
    private let reader: ClusterReader
    let clusterByteCount: UInt32?

    static let cacheByteLimit = 4 << 20

    init(entry: SnapshotEntry, operations: SnapshotOperations, backing: ChildSlot) throws(ColdframeError) {
        let geometry = operations.geometry
        byteCount = entry.info.diskByteCount
        displayFilename = operations.file.node.driver.displayFilename
        clusterByteCount = UInt32(geometry.clusterByteCount)
        let l1 = try operations.walk.readL1(entry)
        let needed = geometry.l1EntryCount(forByteCount: byteCount)
        guard byteCount <= UInt64(Int64.max), UInt64(l1.count) >= needed else {
            throw ColdframeError(.corrupt, "L1 table of snapshot '\(entry.info.name)' is too small")
        }
        let map = ClusterMap(
            file: operations.file, geometry: geometry, l1: Array(l1.prefix(Int(needed))), l1Offset: entry.l1Offset,
            cacheByteLimit: Self.cacheByteLimit)
        reader = ClusterReader(
            map: map, file: operations.file, backing: backing, compression: operations.compression)
    }

    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try reader.read(into: buffer, at: GuestOffset(offset))
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try reader.extents(at: offset, byteCount: byteCount, limit: limit)
    }
}

/// Reads the state that is stored beside a snapshot.
final class StoredVMState: VMStateReader {
    let byteCount: UInt64
    private let reader: ClusterReader
    private let start: UInt64

    init(entry: SnapshotEntry, operations: SnapshotOperations) throws(ColdframeError) {
        let geometry = operations.geometry
        byteCount = entry.info.vmStateByteCount
        guard byteCount > 0 else {
            throw ColdframeError(.notFound, "Snapshot '\(entry.info.name)' has no state")
        }
        let l1 = try operations.walk.readL1(entry)
        let firstEntry = geometry.l1EntryCount(forByteCount: entry.info.diskByteCount)
        let tableCount = geometry.l1EntryCount(forByteCount: byteCount)
        guard entry.info.diskByteCount <= UInt64(Int64.max), byteCount <= UInt64(Int64.max),
            UInt64(l1.count) >= firstEntry, UInt64(l1.count) - firstEntry >= tableCount
        else {
            throw ColdframeError(.corrupt, "L1 table of snapshot '\(entry.info.name)' is too small for its state")
        }
        start = firstEntry * geometry.l2TableSpan
        let map = ClusterMap(
            file: operations.file, geometry: geometry, l1: l1, l1Offset: entry.l1Offset,
            cacheByteLimit: SnapshotDisk.cacheByteLimit)
        reader = ClusterReader(
            map: map, file: operations.file, backing: ChildSlot(), compression: operations.compression)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        guard offset <= byteCount, UInt64(buffer.count) <= byteCount - offset else {
            throw ColdframeError(.invalidArgument, "Read outside the state of \(byteCount) bytes")
        }
        try reader.read(into: buffer, at: GuestOffset(start + offset))
    }
}

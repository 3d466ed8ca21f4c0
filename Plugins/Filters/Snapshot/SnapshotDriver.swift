import ColdframeKit

/// The disk of a snapshot under a lease that lasts as long as the node. Any thread, as the snapshot itself.
final class SnapshotDriver: BlockDriver {
    let driverName = "snapshot"
    let threadModel: ThreadModel
    let isReadOnly = true
    let byteCount: UInt64
    let displayFilename: String
    private let lease: any SnapshotLease
    private let disk: any BlockDriver

    init(_ lease: any SnapshotLease, below child: BlockNode) {
        self.lease = lease
        disk = lease.disk
        threadModel = disk.threadModel
        byteCount = disk.byteCount
        displayFilename = child.driver.displayFilename
    }

    func information() throws(ColdframeError) -> BlockInformation { try disk.information() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try disk.read(into: buffer, at: offset)
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try disk.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        throw Self.readOnlyError
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        throw Self.readOnlyError
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) { throw Self.readOnlyError }
    func flush() throws(ColdframeError) {}
    func close() throws(ColdframeError) { lease.release() }

    private static let readOnlyError = ColdframeError(.permission, "A snapshot is read-only")
}

import ColdframeKit
import LinuxSystem
import QMPWire
import Synchronization

/// An open qcow2 image.
///
/// Data methods run on any number of threads. `SnapshotBearing`'s operations run while the node is drained, one at a
/// time; the state of a machine is appended while requests are served.
public final class Qcow2Driver: BlockDriver, Backed {
    public let driverName = "qcow2"
    public let isReadOnly: Bool
    public let threadModel = ThreadModel.parallel
    public let backing: BlockNode?

    let file: ImageFile
    let geometry: Geometry
    let extensions: HeaderExtensions
    let map: ClusterMap
    let reader: ClusterReader
    let store: ClusterStore
    let writer: DiskWriter
    let operations: SnapshotOperations
    private let diskByteCount: Atomic<UInt64>
    private let backingFilename: String?
    private let passesDiscards: Bool
    let hasStateWriter = Atomic<Bool>(false)

    /// What may be set when an image is opened.
    public struct Options: Sendable {
        public var isReadOnly = false
        /// Bound of the cache of L2 tables, in bytes.
        public var l2CacheByteLimit = 32 << 20
        /// Bound of the cache of refcount blocks, in bytes.
        public var refcountCacheByteLimit = 8 << 20
        /// Whether discards, and zeroing that may unmap, free clusters (`discard=unmap`).
        public var passesDiscards = true
        public init() {}
    }

    /// Opens an image whose header has been read. Blocks. On a throw nothing has been written.
    ///
    /// `image` is what `Qcow2Image.read` gave for the same file, `backing` the node that is to show through, or nil.
    public init(_ image: Qcow2Image, backing: BlockNode?, options: Options) throws(ColdframeError) {
        let header = image.header
        file = image.file
        extensions = image.extensions
        geometry = header.geometry
        isReadOnly = options.isReadOnly
        passesDiscards = options.passesDiscards
        backingFilename = image.backingFilename
        self.backing = backing
        if !options.isReadOnly { try image.checkWritable() }
        let l1 = try image.readL1()
        let refcounts = try RefcountTable(
            file: file, geometry: geometry, header: header, cacheByteLimit: options.refcountCacheByteLimit)
        let contents = try SnapshotTable.read(header, file)
        diskByteCount = Atomic(header.diskByteCount)
        map = ClusterMap(
            file: file, geometry: geometry, l1: l1, l1Offset: header.l1Offset, cacheByteLimit: options.l2CacheByteLimit)
        reader = ClusterReader(map: map, file: file, backing: backing)
        store = ClusterStore(file: file, geometry: geometry, header: header, refcounts: refcounts)
        writer = DiskWriter(map: map, store: store, reader: reader)
        operations = SnapshotOperations(map: map, store: store, contents: contents)
    }

    public var byteCount: UInt64 { diskByteCount.load(ordering: .acquiring) }
    public var displayFilename: String { file.node.driver.displayFilename }

    public func information() throws(ColdframeError) -> BlockInformation {
        let header = store.header
        var data: JSONObject = [:]
        data["compat"] = .string(header.version >= 3 ? "1.1" : "0.10")
        if header.version >= 3 {
            data["extended-l2"] = .bool(geometry.hasExtendedL2)
            data["lazy-refcounts"] = .bool(header.compatible & Header.lazyRefcountsFeature != 0)
            data["corrupt"] = .bool(header.incompatible.contains(.corrupt))
        }
        data["refcount-bits"] = .integer(1 << Int64(geometry.refcountOrder))
        data["compression-type"] = .string("zlib")
        return BlockInformation(
            allocatedByteCount: try file.node.driver.information().allocatedByteCount,
            clusterByteCount: UInt32(geometry.clusterByteCount),
            isDirty: header.incompatible.contains(.dirty), backingFilename: backingFilename,
            backingFormat: extensions.backingFormat, formatSpecific: ("qcow2", data))
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let epoch = store.epochs.enter()
        defer { store.epochs.leave(epoch) }
        try reader.read(into: buffer, at: GuestOffset(offset))
    }

    public func write(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags
    ) throws(ColdframeError) {
        let epoch = store.epochs.enter()
        do {
            defer { store.epochs.leave(epoch) }
            try writer.write(buffer, at: GuestOffset(offset))
        }
        if flags.contains(.forceUnitAccess) { try store.flush() }
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let epoch = store.epochs.enter()
        do {
            defer { store.epochs.leave(epoch) }
            try writer.writeZeroes(
                offset..<offset + byteCount, diskByteCount: self.byteCount,
                flags: passesDiscards ? flags : flags.subtracting(.mayUnmap))
        }
        if flags.contains(.forceUnitAccess) { try store.flush() }
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        guard passesDiscards else { return }
        let epoch = store.epochs.enter()
        defer { store.epochs.leave(epoch) }
        try writer.discard(offset..<offset + byteCount, diskByteCount: self.byteCount)
    }

    public func flush() throws(ColdframeError) {
        if isReadOnly { return }
        try store.flush()
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        let epoch = store.epochs.enter()
        defer { store.epochs.leave(epoch) }
        return try reader.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    public func close() throws(ColdframeError) {
        if isReadOnly { return }
        try store.close()
    }

    func setDiskByteCount(_ byteCount: UInt64) { diskByteCount.store(byteCount, ordering: .releasing) }
}

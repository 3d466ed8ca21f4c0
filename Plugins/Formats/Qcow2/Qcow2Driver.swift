import ColdframeKit
import LinuxSystem
import Synchronization

/// An open qcow2 image.
///
/// Data methods run on any number of threads. `SnapshotBearing`'s operations run while the node is drained, one at a
/// time; the state of a machine is appended while requests are served.
public final class Qcow2Driver: BlockDriver, Backed, WritebackStarting {
    public let driverName = "qcow2"
    public let threadModel = ThreadModel.parallel
    let backingSlot: ChildSlot

    let file: ImageFile
    let geometry: Geometry
    let map: ClusterMap
    let reader: ClusterReader
    let store: ClusterStore
    let writer: DiskWriter
    let operations: SnapshotOperations
    let corruption: Corruption
    let bitmaps: BitmapStorage
    private let isOpenReadOnly: Bool
    private let takesDiscards: Bool
    private let diskByteCount: Atomic<UInt64>
    /// Known once somebody has asked.
    let bearsHoles = Locked<Bool?>(nil)
    let hasStateWriter = Atomic<Bool>(false)
    /// From then on the image may be another than this driver knows.
    private let isClosed = Atomic<Bool>(false)

    /// What may be set when an image is opened.
    public struct Options: Sendable {
        public var isReadOnly = false
        /// Bound of the cache of L2 tables, in bytes.
        public var l2CacheByteLimit = 32 << 20
        /// Bound of the cache of refcount blocks, in bytes.
        public var refcountCacheByteLimit = 8 << 20
        /// Whether discards, and zeroing that may unmap, free clusters (`discard=unmap`).
        public var takesDiscards = true
        /// What writes must not fall on (`overlap-check`).
        var overlapChecks = MetadataKinds.cached
        /// Which freed clusters are given back to the host.
        var discardPolicy = DiscardPolicy()
        /// Called, on any thread, when the image is found damaged.
        public var reportCorruption: @Sendable (ImageCorruption) -> Void = { _ in }
        public init() {}
    }

    /// Opens an image whose header has been read. Blocks. A dirty image that is to be written is repaired first; beside
    /// that, nothing has been written on a throw.
    ///
    /// `image` is what `Qcow2Image.read` gave for the same file, `backing` the node that is to show through, or nil,
    /// `dataFile` the node with the guest's data for images that keep it in a file of its own.
    public init(
        _ image: Qcow2Image, backing: BlockNode?, dataFile: BlockNode? = nil, options: Options
    ) throws(ColdframeError) {
        let image = options.isReadOnly ? image : try image.mended()
        let header = image.header
        file = image.file
        geometry = header.geometry
        isOpenReadOnly = options.isReadOnly
        takesDiscards = options.takesDiscards
        backingSlot = ChildSlot(backing)
        if !options.isReadOnly { try image.checkWritable() }
        let data = try image.data(dataFile)
        let l1 = try image.readL1()
        let refcounts = try RefcountTable(
            file: file, geometry: geometry, header: header, cacheByteLimit: options.refcountCacheByteLimit)
        let contents = try SnapshotTable.read(header, file)
        diskByteCount = Atomic(header.diskByteCount)
        map = ClusterMap(
            file: file, geometry: geometry, l1: l1, l1Offset: header.l1Offset, cacheByteLimit: options.l2CacheByteLimit)
        reader = ClusterReader(map: map, file: data.file, backing: backingSlot, compression: image.compression)
        let guardian = MetadataGuard(
            geometry: geometry, checks: options.isReadOnly ? [] : options.overlapChecks,
            expectedCount: l1.count + refcounts.blockOffsets.count)
        var known = KnownMetadata(geometry: geometry, guardian: guardian)
        known.addActive(header, l1: l1, refcounts: refcounts, snapshotTableByteCount: contents.byteCount)
        known.addSnapshots(contents.entries, TreeWalk(file: file, geometry: geometry))
        if let bitmaps = image.extensions.bitmaps { known.addBitmaps(bitmaps) }
        refcounts.guardian = guardian
        store = ClusterStore(
            file: file, data: data, header: header, names: image.names, refcounts: refcounts, guardian: guardian,
            policy: options.discardPolicy)
        bitmaps = BitmapStorage(store: store)
        writer = DiskWriter(
            map: map, store: store, reader: reader, compression: image.compression, bitmaps: bitmaps)
        operations = SnapshotOperations(map: map, store: store, contents: contents, compression: image.compression)
        corruption = Corruption(store: store, report: options.reportCorruption)
    }

    public var byteCount: UInt64 { diskByteCount.load(ordering: .acquiring) }
    public var isReadOnly: Bool {
        isOpenReadOnly || corruption.forbidsChanges || isClosed.load(ordering: .acquiring)
    }
    public var clusterByteCount: UInt32? { UInt32(geometry.clusterByteCount) }
    public var displayFilename: String { file.node.driver.displayFilename }

    // MARK: Requests

    /// Counts `body` as a request that reads.
    private func reading<Result>(
        _ body: () throws(ColdframeError) -> Result
    ) throws(ColdframeError) -> Result {
        let epoch = store.epochs.enter()
        defer { store.epochs.leave(epoch) }
        do throws(ColdframeError) {
            return try body()
        } catch {
            corruption.noticeReading(error)
            throw error
        }
    }

    /// Counts `body` as a request that changes the image.
    func changing(
        _ flags: WriteFlags = [], _ body: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        guard !corruption.forbidsChanges else {
            throw ColdframeError(.permission, "Image '\(displayFilename)' is marked corrupt and takes no changes")
        }
        guard !isClosed.load(ordering: .acquiring) else {
            throw ColdframeError(.io, "Image '\(displayFilename)' has been closed and takes no changes")
        }
        let epoch = store.epochs.enter()
        do throws(ColdframeError) {
            defer { store.epochs.leave(epoch) }
            try body()
        } catch {
            throw corruption.noticeChanging(error)
        }
        if flags.contains(.forceUnitAccess) { try store.flush() }
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try reading { () throws(ColdframeError) in try reader.read(into: buffer, at: GuestOffset(offset)) }
    }

    public func write(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags
    ) throws(ColdframeError) {
        try changing(flags) { () throws(ColdframeError) in try writer.write(buffer, at: GuestOffset(offset)) }
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try changing(flags) { () throws(ColdframeError) in
            try writer.writeZeroes(
                offset..<offset + byteCount, diskByteCount: self.byteCount,
                flags: takesDiscards ? flags : flags.subtracting(.mayUnmap))
        }
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        guard takesDiscards else { return }
        try changing { () throws(ColdframeError) in
            try writer.discard(offset..<offset + byteCount, diskByteCount: self.byteCount)
        }
    }

    public func flush() throws(ColdframeError) {
        if isOpenReadOnly || isClosed.load(ordering: .acquiring) { return }
        try store.flush()
    }

    public func startWriteback() {
        let files = store.data.isExternal ? [store.file, store.data.file] : [store.file]
        for file in files { (file.node.driver as? any WritebackStarting)?.startWriteback() }
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try reading { () throws(ColdframeError) in try reader.extents(at: offset, byteCount: byteCount, limit: limit) }
    }

    public func close() throws(ColdframeError) {
        if isOpenReadOnly || isClosed.exchange(true, ordering: .acquiringAndReleasing) { return }
        // Refcounts of a damaged image are left as they are: what they say is not to be built upon.
        if corruption.forbidsChanges { return try store.flush() }
        writer.compressedSpace.settle()
        try store.close()
    }

    func setDiskByteCount(_ byteCount: UInt64) { diskByteCount.store(byteCount, ordering: .releasing) }
}

import ColdframeKit

/// Makes new images.
public enum Qcow2Create {
    public struct Options: Sendable {
        /// Size of the virtual disk in bytes, a multiple of 512.
        public var diskByteCount: UInt64
        public var clusterByteCount: UInt64 = 65536
        public var refcountBits: UInt64 = 16
        /// 2 (compat 0.10) or 3 (compat 1.1).
        public var version: UInt32 = 3
        public var backingFilename: String?
        public var backingFormat: String?

        public init(diskByteCount: UInt64) { self.diskByteCount = diskByteCount }
    }

    /// Writes an empty image into `node`, which is made as long as needed. Blocks. Durable when it returns; the header is
    /// written last, so that a crash leaves no half image.
    public static func write(_ options: Options, into node: BlockNode) throws(ColdframeError) {
        let geometry = try checkedGeometry(options)
        let layout = Layout(options, geometry)
        let first = try headerCluster(options, geometry, layout)
        let file = ImageFile(node)
        // Whatever the file held is gone before the new header claims it.
        try file.truncate(toByteCount: 0)
        let tablesByteCount = layout.clusterCount << UInt64(geometry.clusterBits)
        if file.byteCount > 0 {
            try file.writeZeroes(at: HostOffset(0), byteCount: min(file.byteCount, tablesByteCount))
        }
        try file.ensureByteCount(tablesByteCount)
        for index in 0..<layout.blockCount {
            let block = RefcountBlock(geometry: geometry)
            let base = index * geometry.refcountBlockEntryCount
            let used = min(layout.clusterCount, base + geometry.refcountBlockEntryCount) - base
            for entry in 0..<Int(used) { block[entry] = 1 }
            try file.write(
                UnsafeRawBufferPointer(block.bytes), at: geometry.hostOffset(ofCluster: layout.firstBlock + index))
        }
        let blockOffsets = (0..<layout.blockCount).map {
            geometry.hostOffset(ofCluster: layout.firstBlock + $0).rawValue
        }
        try file.writeWords(blockOffsets, at: geometry.hostOffset(ofCluster: layout.firstTable))
        try file.flush()
        try file.write(first, at: HostOffset(0))
        try file.flush()
    }

    /// Header, refcount table, refcount blocks, L1 table, in this order.
    private struct Layout {
        var tableClusterCount: UInt64 = 1
        var blockCount: UInt64 = 1
        let l1EntryCount: UInt64
        let l1ClusterCount: UInt64
        var firstTable: UInt64 { 1 }
        var firstBlock: UInt64 { 1 + tableClusterCount }
        var firstL1: UInt64 { firstBlock + blockCount }
        var clusterCount: UInt64 { firstL1 + l1ClusterCount }

        init(_ options: Options, _ geometry: Geometry) {
            // QEMU's tools expect an L1 table even of an empty disk.
            l1EntryCount = max(1, geometry.l1EntryCount(forByteCount: options.diskByteCount))
            l1ClusterCount = geometry.clusterCount(forByteCount: l1EntryCount * 8)
            // The refcounts count themselves: grows until they cover all.
            while blockCount * geometry.refcountBlockEntryCount < clusterCount
                || tableClusterCount * geometry.clusterByteCount / 8 < blockCount
            {
                blockCount = (clusterCount + geometry.refcountBlockEntryCount - 1) / geometry.refcountBlockEntryCount
                tableClusterCount = geometry.clusterCount(forByteCount: blockCount * 8)
            }
        }
    }

    private static func checkedGeometry(_ options: Options) throws(ColdframeError) -> Geometry {
        guard options.clusterByteCount.nonzeroBitCount == 1, 512...(2 << 20) ~= options.clusterByteCount else {
            throw ColdframeError(.invalidArgument, "Cluster size must be a power of two between 512 and 2048k")
        }
        guard options.refcountBits.nonzeroBitCount == 1, options.refcountBits <= 64 else {
            throw ColdframeError(
                .invalidArgument, "Refcount width must be a power of two and may not exceed 64 bits")
        }
        guard options.version == 3 || options.version == 2 else {
            throw ColdframeError(.invalidArgument, "Unsupported qcow2 version \(options.version)")
        }
        guard options.version >= 3 || options.refcountBits == 16 else {
            throw ColdframeError(
                .invalidArgument,
                "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)"
            )
        }
        guard options.diskByteCount % 512 == 0 else {
            throw ColdframeError(.invalidArgument, "Image size must be a multiple of 512 bytes")
        }
        let geometry = Geometry(
            clusterBits: options.clusterByteCount.trailingZeroBitCount,
            refcountOrder: options.refcountBits.trailingZeroBitCount, hasExtendedL2: false, version: options.version)
        guard options.diskByteCount <= UInt64(Int64.max),
            geometry.l1EntryCount(forByteCount: options.diskByteCount) * 8 <= Limits.l1ByteCount
        else {
            throw ColdframeError(
                .invalidArgument, "Image size too large for clusters of \(options.clusterByteCount) bytes", errno: 27)
        }
        return geometry
    }

    private static func headerCluster(
        _ options: Options, _ geometry: Geometry, _ layout: Layout
    ) throws(ColdframeError) -> [UInt8] {
        var header = Header(version: options.version, geometry: geometry, diskByteCount: options.diskByteCount)
        header.l1EntryCount = UInt32(layout.l1EntryCount)
        header.l1Offset = geometry.hostOffset(ofCluster: layout.firstL1)
        header.refcountTableOffset = geometry.hostOffset(ofCluster: layout.firstTable)
        header.refcountTableClusterCount = UInt32(layout.tableClusterCount)
        let extensions = HeaderExtensions.encoded(
            backingFormat: options.backingFilename == nil ? nil : options.backingFormat, version: options.version,
            clusterByteCount: options.clusterByteCount)
        let name = Array((options.backingFilename ?? "").utf8)
        guard name.count <= Limits.backingNameByteCount else {
            throw ColdframeError(.invalidArgument, "Backing file name too long")
        }
        if !name.isEmpty {
            header.backingNameOffset = UInt64(Int(header.headerByteCount) + extensions.count)
            header.backingNameByteCount = UInt32(name.count)
        }
        var bytes = header.encodedFixedFields
        bytes.append(contentsOf: repeatElement(0, count: Int(header.headerByteCount) - bytes.count))
        bytes.append(contentsOf: extensions)
        bytes.append(contentsOf: name)
        guard UInt64(bytes.count) <= geometry.clusterByteCount else {
            throw ColdframeError(
                .invalidArgument,
                "Header and backing file name do not fit into a cluster of \(geometry.clusterByteCount) bytes")
        }
        return bytes
    }
}

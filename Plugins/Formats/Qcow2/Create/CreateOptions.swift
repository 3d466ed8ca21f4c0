import ColdframeKit

extension Qcow2Create {
    /// What a new image is like. The defaults are `qemu-img create`'s.
    public struct Options: Sendable {
        /// Size of the virtual disk in bytes, a multiple of 512.
        public var diskByteCount: UInt64
        public var clusterByteCount: UInt64 = 65536
        public var refcountBits: UInt64 = 16
        /// 2 (compat 0.10) or 3 (compat 1.1).
        public var version: UInt32 = 3
        public var backingFilename: String?
        public var backingFormat: String?
        /// L2 entries with 32 subclusters each.
        public var hasExtendedL2 = false
        /// Lets other programs postpone refcounts; we keep them exact all the same.
        public var hasLazyRefcounts = false
        public var compressesWithZstd = false
        /// The external data file can be read by itself as a raw image.
        public var isDataFileRaw = false
        public var preallocation = Preallocation.off

        public init(diskByteCount: UInt64) { self.diskByteCount = diskByteCount }
    }

    /// What a new image reserves for the guest's data.
    public enum Preallocation: String, Sendable, CaseIterable {
        case off
        /// All L2 tables, with a place for every cluster; the file is sparse.
        case metadata
        /// The same, and the host's space is reserved.
        case falloc
        /// The same, by writing zeros.
        case full
    }

    /// The geometry of an image with these options, or QEMU's text on what excludes what.
    static func checked(
        _ options: inout Options, hasDataFile: Bool
    ) throws(ColdframeError) -> Geometry {
        func refuse(_ isWrong: Bool, _ text: String) throws(ColdframeError) {
            if isWrong { throw ColdframeError(.invalidArgument, text) }
        }
        let needsVersion3 = "compatibility level 1.1 and above (use version=v3 or greater)"
        try refuse(options.diskByteCount % 512 != 0, "Image size must be a multiple of 512 bytes")
        try refuse(options.version != 3 && options.version != 2, "Unsupported qcow2 version \(options.version)")
        let isOld = options.version < 3
        try refuse(isOld && options.hasExtendedL2, "Extended L2 entries are only supported with \(needsVersion3)")
        try refuse(
            options.clusterByteCount.nonzeroBitCount != 1 || !(512...(2 << 20) ~= options.clusterByteCount),
            "Cluster size must be a power of two between 512 and 2048k")
        try refuse(
            options.hasExtendedL2 && options.clusterByteCount < 16384,
            "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes")
        try refuse(
            options.backingFilename != nil && options.preallocation != .off && !options.hasExtendedL2,
            "Backing file and preallocation can only be used at the same time if extended_l2 is on")
        try refuse(
            options.backingFormat != nil && options.backingFilename == nil,
            "Backing format cannot be used without backing file")
        try refuse(
            isOld && options.hasLazyRefcounts,
            "Lazy refcounts only supported with \(needsVersion3)")
        try refuse(
            options.refcountBits.nonzeroBitCount != 1 || options.refcountBits > 64,
            "Refcount width must be a power of two and may not exceed 64 bits")
        try refuse(
            isOld && options.refcountBits != 16,
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)"
        )
        try refuse(options.isDataFileRaw && !hasDataFile, "data-file-raw requires data-file")
        try refuse(
            options.isDataFileRaw && options.backingFilename != nil,
            "Backing file and data-file-raw cannot be used at the same time")
        try refuse(isOld && hasDataFile, "External data files are only supported with \(needsVersion3)")
        try refuse(
            isOld && options.compressesWithZstd, "Non-zlib compression type is only supported with \(needsVersion3)")
        // A raw data file says nothing of what is unallocated, so the tables must map all of it.
        if options.isDataFileRaw, options.preallocation == .off { options.preallocation = .metadata }

        let geometry = Geometry(
            clusterBits: options.clusterByteCount.trailingZeroBitCount,
            refcountOrder: options.refcountBits.trailingZeroBitCount, hasExtendedL2: options.hasExtendedL2,
            version: options.version, hasExternalData: hasDataFile)
        guard options.diskByteCount <= UInt64(Int64.max),
            geometry.l1EntryCount(forByteCount: options.diskByteCount) * 8 <= Limits.l1ByteCount
        else {
            throw ColdframeError(
                .invalidArgument, "Image size too large for clusters of \(options.clusterByteCount) bytes", errno: 27)
        }
        return geometry
    }
}

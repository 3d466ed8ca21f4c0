/// A byte position in the virtual disk.
struct GuestOffset: Sendable, Hashable, Comparable {
    var rawValue: UInt64
    init(_ rawValue: UInt64) { self.rawValue = rawValue }
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// A byte position in the image file.
struct HostOffset: Sendable, Hashable, Comparable {
    var rawValue: UInt64
    init(_ rawValue: UInt64) { self.rawValue = rawValue }
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    static func + (a: Self, byteCount: UInt64) -> Self { Self(a.rawValue &+ byteCount) }
}

/// The sizes that follow from the header and never change while an image is open.
struct Geometry: Sendable, Equatable {
    /// 9 ... 21: clusters of 512 bytes to 2 MiB.
    let clusterBits: Int
    /// 0 ... 6: refcounts of 1 to 64 bits.
    let refcountOrder: Int
    /// L2 entries of 16 bytes with a subcluster bitmap.
    let hasExtendedL2: Bool
    /// Zero clusters exist from version 3 on.
    let version: UInt32
    /// Guest data lies in a file of its own, at the guest's offsets; its clusters have no refcounts.
    var hasExternalData = false

    static let clusterBitsRange = 9...21

    /// The same with refcounts of another width.
    func with(refcountOrder: Int) -> Geometry {
        Geometry(
            clusterBits: clusterBits, refcountOrder: refcountOrder, hasExtendedL2: hasExtendedL2, version: version,
            hasExternalData: hasExternalData)
    }

    var clusterByteCount: UInt64 { 1 << UInt64(clusterBits) }
    var clusterMask: UInt64 { clusterByteCount - 1 }
    var l2EntryByteCount: Int { hasExtendedL2 ? 16 : 8 }
    /// Words of 64 bits per L2 entry.
    var l2EntryWordCount: Int { hasExtendedL2 ? 2 : 1 }
    var l2EntryCount: Int { Int(clusterByteCount) / l2EntryByteCount }
    var l2Bits: Int { clusterBits - (hasExtendedL2 ? 4 : 3) }
    /// Guest bytes under one L2 table; at most 2^39.
    var l2TableSpan: UInt64 { 1 << UInt64(clusterBits + l2Bits) }
    var refcountBlockBits: Int { clusterBits + 3 - refcountOrder }
    /// Clusters counted by one refcount block.
    var refcountBlockEntryCount: UInt64 { 1 << UInt64(refcountBlockBits) }
    var refcountMaximum: UInt64 { refcountOrder == 6 ? .max : (1 << (1 << UInt64(refcountOrder))) - 1 }
    /// Parts of a cluster that are allocated one by one; one where entries have 8 bytes.
    var subclusterCount: Int { hasExtendedL2 ? 32 : 1 }
    var subclusterByteCount: UInt64 { hasExtendedL2 ? clusterByteCount / 32 : clusterByteCount }
    /// A bit for each subcluster of a cluster.
    var allSubclusters: UInt32 { hasExtendedL2 ? .max : 1 }

    /// L2 tables are cached in pieces of this size, so that a random read does not pull a whole table into memory.
    var sliceByteCount: Int { min(Int(clusterByteCount), 4096) }
    var sliceEntryCount: Int { sliceByteCount / l2EntryByteCount }
    /// Guest bytes under one slice.
    var sliceSpan: UInt64 { UInt64(sliceEntryCount) << UInt64(clusterBits) }

    /// Entries of an L1 table that covers `byteCount` bytes; for disk sizes up to Int64.max it cannot overflow.
    func l1EntryCount(forByteCount byteCount: UInt64) -> UInt64 {
        byteCount / l2TableSpan + (byteCount % l2TableSpan == 0 ? 0 : 1)
    }

    /// Clusters that `byteCount` bytes take.
    func clusterCount(forByteCount byteCount: UInt64) -> UInt64 {
        (byteCount >> UInt64(clusterBits)) + (byteCount & clusterMask == 0 ? 0 : 1)
    }

    /// `byteCount` rounded up to whole clusters; nil if that does not fit into 64 bits.
    func roundedUp(_ byteCount: UInt64) -> UInt64? {
        let (sum, overflow) = byteCount.addingReportingOverflow(clusterMask)
        return overflow ? nil : sum & ~clusterMask
    }

    func isClusterAligned(_ value: UInt64) -> Bool { value & clusterMask == 0 }
    func hostOffset(ofCluster index: UInt64) -> HostOffset { HostOffset(index << UInt64(clusterBits)) }
    func cluster(of offset: HostOffset) -> UInt64 { offset.rawValue >> UInt64(clusterBits) }
}

/// Bounds on what an image may make us hold in memory; the same as QEMU's, so that both open the same images.
enum Limits {
    static let l1ByteCount: UInt64 = 32 << 20
    static let refcountTableByteCount: UInt64 = 8 << 20
    static let snapshotCount: UInt64 = 65536
    static let snapshotTableByteCount: UInt64 = 1024 * 65536
    static let snapshotExtraByteCount = 1024
    static let backingNameByteCount: UInt64 = 1023
    /// Host offsets in L1 and L2 entries have 56 bits.
    static let hostByteCount: UInt64 = 1 << 56
}

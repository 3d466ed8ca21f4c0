/// Bits of L1 and L2 entries. The format text's section "Cluster mapping".
enum EntryBits {
    /// The table or cluster has a refcount of exactly one: it may be written in place. Exact in the active tables only.
    static let copied: UInt64 = 1 << 63
    static let compressed: UInt64 = 1 << 62
    /// Reads as zeros (version 3, not with extended entries).
    static let zero: UInt64 = 1
    /// Bits 9 to 55.
    static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
}

/// One L2 entry, in host order.
struct L2Entry: Sendable, Equatable {
    let word: UInt64

    init(_ word: UInt64) { self.word = word }
    init(host: HostOffset, flags: UInt64) { word = host.rawValue | flags }

    var isCompressed: Bool { word & EntryBits.compressed != 0 }
    var isCopied: Bool { word & EntryBits.copied != 0 }
    var hasZeroFlag: Bool { word & EntryBits.zero != 0 }
    /// Of a standard cluster; 0 if it has none.
    var hostOffset: UInt64 { word & EntryBits.offsetMask }
    /// A standard cluster that holds a host cluster, read or not.
    var holdsCluster: Bool { !isCompressed && hostOffset != 0 }
    /// May be written in place: ours alone, and not read as zeros.
    func isWritableInPlace(hasExtendedL2: Bool) -> Bool {
        word & (EntryBits.copied | EntryBits.compressed) == EntryBits.copied && hostOffset != 0
            && (hasExtendedL2 || !hasZeroFlag)
    }

    /// Where a compressed cluster lies: the format text's "Compressed Clusters Descriptor".
    func compressedRange(_ geometry: Geometry) -> CompressedRange {
        let shift = UInt64(62 - (geometry.clusterBits - 8))
        let offset = word & ((1 << shift) - 1)
        let sectorCount = ((word & ~(EntryBits.compressed | EntryBits.copied)) >> shift) + 1
        return CompressedRange(offset: offset, byteCount: sectorCount * 512 - (offset & 511))
    }
}

/// Bytes of the file that hold a compressed cluster: at most two clusters' worth.
struct CompressedRange: Sendable, Hashable {
    let offset: UInt64
    let byteCount: UInt64

    /// The host clusters that it touches, each of which it holds one reference to.
    func clusters(_ geometry: Geometry) -> ClosedRange<UInt64> {
        // The offset has at most 61 bits, so the sum cannot overflow.
        (offset >> UInt64(geometry.clusterBits))...((offset + byteCount - 1) >> UInt64(geometry.clusterBits))
    }
}

/// Host clusters in a row.
struct ClusterRun: Sendable, Equatable {
    var first: UInt64
    var count: UInt64
    var end: UInt64 { first + count }
}

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
    /// The subclusters of an extended entry: allocated in the low half, zero in the high half. 0 in entries of 8 bytes.
    let bitmap: UInt64

    init(_ word: UInt64, bitmap: UInt64 = 0) {
        self.word = word
        self.bitmap = bitmap
    }

    /// The entry at `index` of a table or a slice of one.
    init(_ words: UnsafePointer<UInt64>, _ index: Int, _ geometry: Geometry) {
        if geometry.hasExtendedL2 {
            self.init(words[index * 2], bitmap: words[index * 2 + 1])
        } else {
            self.init(words[index])
        }
    }

    static let empty = L2Entry(0)

    var isCompressed: Bool { word & EntryBits.compressed != 0 }
    var isCopied: Bool { word & EntryBits.copied != 0 }
    /// Of a standard cluster; 0 if it has none.
    var hostOffset: UInt64 { word & EntryBits.offsetMask }

    /// A standard cluster that holds a host cluster, read or not. In an external data file the first one lies at 0, and
    /// only the COPIED flag tells it from none.
    func holdsCluster(_ geometry: Geometry) -> Bool {
        !isCompressed && (hostOffset != 0 || (geometry.hasExternalData && isCopied))
    }

    /// Where a compressed cluster lies: the format text's "Compressed Clusters Descriptor".
    func compressedRange(_ geometry: Geometry) -> CompressedRange {
        let shift = UInt64(62 - (geometry.clusterBits - 8))
        let offset = word & ((1 << shift) - 1)
        let sectorCount = ((word & ~(EntryBits.compressed | EntryBits.copied)) >> shift) + 1
        return CompressedRange(offset: offset, byteCount: sectorCount * 512 - (offset & 511))
    }

    /// The entry of a compressed cluster; the range was given out by `CompressedSpace`.
    init(compressed range: CompressedRange, _ geometry: Geometry) {
        let shift = UInt64(62 - (geometry.clusterBits - 8))
        let sectorCount = (range.offset + range.byteCount - 1) / 512 - range.offset / 512
        self.init(EntryBits.compressed | range.offset | sectorCount << shift)
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

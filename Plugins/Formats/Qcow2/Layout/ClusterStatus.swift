import ColdframeKit

/// What an L2 entry says about a guest cluster, whatever the kind of the entry: a cluster with 8-byte entries is one
/// subcluster. The format text's sections "Standard Cluster Descriptor" and "Extended L2 Entries".
struct ClusterStatus: Sendable, Equatable {
    /// The standard cluster that it holds, read or not; nil also for compressed ones.
    var host: HostOffset?
    var isCopied: Bool
    /// Subclusters whose content is at `host`, and those that read as zeros. What is in neither shows the backing file.
    /// Empty for compressed clusters.
    var allocated: UInt32
    var zero: UInt32
    var compressed: CompressedRange?

    /// Writes may go to the host cluster itself.
    var isOwn: Bool { isCopied && host != nil }

    /// Subclusters that have a content of their own.
    func data(_ geometry: Geometry) -> UInt32 { compressed == nil ? allocated : geometry.allSubclusters }

    init(_ entry: L2Entry, _ geometry: Geometry) throws(ColdframeError) {
        isCopied = entry.isCopied
        allocated = 0
        zero = 0
        if entry.isCompressed {
            guard !geometry.hasExternalData else {
                throw ColdframeError(.corrupt, "Compressed cluster entry found in image with external data file")
            }
            compressed = entry.compressedRange(geometry)
            isCopied = false
            return
        }
        if entry.holdsCluster(geometry) {
            guard geometry.isClusterAligned(entry.hostOffset) else {
                throw ColdframeError(
                    .corrupt, "Cluster allocation offset \(entry.hostOffset) is not aligned to a cluster")
            }
            host = HostOffset(entry.hostOffset)
        }
        if geometry.hasExtendedL2 {
            allocated = UInt32(truncatingIfNeeded: entry.bitmap)
            zero = UInt32(truncatingIfNeeded: entry.bitmap >> 32)
            guard allocated & zero == 0, allocated == 0 || host != nil else {
                throw ColdframeError(.corrupt, "Invalid subcluster bitmap \(String(entry.bitmap, radix: 16))")
            }
        } else if entry.word & EntryBits.zero != 0 {
            guard geometry.version >= 3 else {
                throw ColdframeError(.corrupt, "Zero cluster entry found in pre-v3 image")
            }
            zero = 1
        } else if host != nil {
            allocated = 1
        }
    }

    /// A standard cluster.
    init(host: HostOffset?, isCopied: Bool, allocated: UInt32, zero: UInt32) {
        self.host = host
        self.isCopied = isCopied
        self.allocated = allocated
        self.zero = zero
    }

    /// The entry that says this of a standard cluster.
    func entry(_ geometry: Geometry) -> L2Entry {
        var word = host.map { $0.rawValue | (isCopied ? EntryBits.copied : 0) } ?? 0
        if geometry.hasExtendedL2 { return L2Entry(word, bitmap: UInt64(zero) << 32 | UInt64(allocated)) }
        if zero != 0 { word |= EntryBits.zero }
        return L2Entry(word)
    }

    /// How many subclusters from `index` on have the same status, and which.
    func run(from index: Int, _ geometry: Geometry) -> (kind: SubclusterKind, count: Int) {
        let limit = geometry.subclusterCount - index
        if allocated >> UInt32(index) & 1 != 0 {
            return (.data, min(limit, (~(allocated >> UInt32(index))).trailingZeroBitCount))
        }
        if zero >> UInt32(index) & 1 != 0 {
            return (.zero, min(limit, (~(zero >> UInt32(index))).trailingZeroBitCount))
        }
        return (.unallocated, min(limit, ((allocated | zero) >> UInt32(index)).trailingZeroBitCount))
    }
}

enum SubclusterKind: Sendable { case data, zero, unallocated }

extension Geometry {
    /// The subclusters that bytes `range` of a cluster touch; the range is not empty.
    func subclusters(touching range: Range<UInt64>) -> UInt32 {
        let first = range.lowerBound / subclusterByteCount
        let last = (range.upperBound - 1) / subclusterByteCount
        return UInt32(truncatingIfNeeded: (UInt64(2) << last) - (UInt64(1) << first))
    }
}

import ColdframeKit

/// Makes the refcounts of an image say what a check has counted: all new, in clusters that nothing refers to, switched
/// by one write of the header. So a crash leaves the refcounts that there were, or the right ones.
struct RefcountRebuilding {
    private let file: ImageFile
    private let geometry: Geometry
    private var counts: ReferenceCounts
    /// Clusters of the refcounts that are in force until the switch.
    private var old: Set<UInt64> = []
    private var blocks: [UInt64: HostOffset] = [:]
    private var table = ClusterRun(first: 0, count: 0)
    private var search: UInt64 = 1
    private var end: UInt64

    /// `refcountOrder` is the width that the new refcounts have, as a power of two; by default that of the image.
    init(_ check: ImageCheck, refcountOrder: Int? = nil) {
        file = check.file
        geometry = check.geometry.with(refcountOrder: refcountOrder ?? check.geometry.refcountOrder)
        counts = check.counts
        end = counts.clusterCount
    }

    /// Writes the refcounts and switches to them. `change` is made to the header in the same step.
    mutating func run(_ header: Header, _ change: (inout Header) -> Void) throws(ColdframeError) {
        var new = try write(header)
        change(&new)
        try file.write(new.encodedFixedFields, at: HostOffset(0))
        try file.flush()
    }

    /// Writes the refcounts, durably, and returns the header that switches to them.
    mutating func write(_ header: Header) throws(ColdframeError) -> Header {
        releaseOld(header)
        try place()
        try file.ensureByteCount(end << UInt64(geometry.clusterBits))
        var offsets = [UInt64](repeating: 0, count: Int(table.count * geometry.clusterByteCount / 8))
        for (index, offset) in blocks {
            offsets[Int(index)] = offset.rawValue
            try block(index).write(to: file, at: offset)
        }
        try file.writeWords(offsets, at: geometry.hostOffset(ofCluster: table.first))
        try file.flush()
        var new = header
        new.refcountTableOffset = geometry.hostOffset(ofCluster: table.first)
        new.refcountTableClusterCount = UInt32(table.count)
        new.refcountOrder = UInt32(geometry.refcountOrder)
        return new
    }

    /// The structures that go lose their references, and keep their clusters until they are gone.
    private mutating func releaseOld(_ header: Header) {
        let byteCount = UInt64(header.refcountTableClusterCount) << UInt64(geometry.clusterBits)
        let first = geometry.cluster(of: header.refcountTableOffset)
        for cluster in first..<first + UInt64(header.refcountTableClusterCount) where cluster < counts.clusterCount {
            counts.subtract(from: cluster)
            old.insert(cluster)
        }
        guard
            let offsets = try? file.readWords(
                count: Int(byteCount / 8), at: header.refcountTableOffset, "Refcount table")
        else { return }
        for offset in offsets where offset != 0 && geometry.isClusterAligned(offset) {
            let cluster = geometry.cluster(of: HostOffset(offset))
            guard cluster < counts.clusterCount else { continue }
            counts.subtract(from: cluster)
            old.insert(cluster)
        }
    }

    /// Gives every block that counts something a place, and the table; each is counted itself, which may need further
    /// blocks: repeated until nothing is left over.
    private mutating func place() throws(ColdframeError) {
        while true {
            var needed: Set<UInt64> = []
            counts.forEachChunk { first, values in
                for (index, value) in values.enumerated() where value != 0 {
                    needed.insert((first + UInt64(index)) / geometry.refcountBlockEntryCount)
                }
            }
            let missing = needed.subtracting(blocks.keys).sorted()
            for index in missing { blocks[index] = geometry.hostOffset(ofCluster: try take(1).first) }
            let entryCount = (needed.max() ?? 0) + 1
            let clusterCount = geometry.clusterCount(forByteCount: entryCount * 8)
            if clusterCount > table.count {
                guard clusterCount << UInt64(geometry.clusterBits) <= Limits.refcountTableByteCount else {
                    throw ColdframeError(.unsupported, "The refcount table would exceed its limit of 8 MiB", errno: 27)
                }
                for cluster in table.first..<table.end { counts.subtract(from: cluster) }
                table = try take(clusterCount)
            } else if missing.isEmpty {
                return
            }
        }
    }

    /// Clusters in a row that nothing refers to, neither now nor until the switch.
    private mutating func take(_ count: UInt64) throws(ColdframeError) -> ClusterRun {
        var first = search
        var length: UInt64 = 0
        while length < count {
            let cluster = first + length
            if counts[cluster] == 0, !old.contains(cluster) {
                length += 1
            } else {
                first = cluster + 1
                length = 0
            }
        }
        for cluster in first..<first + count { counts.add(1, to: cluster) }
        if count == 1 { search = first + 1 }
        end = max(end, first + count)
        return ClusterRun(first: first, count: count)
    }

    private func block(_ index: UInt64) throws(ColdframeError) -> RefcountBlock {
        let block = RefcountBlock(geometry: geometry)
        let first = index * geometry.refcountBlockEntryCount
        for entry in 0..<Int(geometry.refcountBlockEntryCount) {
            let count = counts[first + UInt64(entry)]
            guard count <= geometry.refcountMaximum else {
                throw ColdframeError(
                    .unsupported,
                    "Cluster \(first + UInt64(entry)) has \(count) references, more than refcounts of \(1 << geometry.refcountOrder) bits can hold"
                )
            }
            if count != 0 { block[entry] = count }
        }
        return block
    }
}

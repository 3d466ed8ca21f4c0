import ColdframeKit

/// Walks over L1 tables and what they reach, for changes of refcounts.
struct TreeWalk {
    let file: ImageFile
    let geometry: Geometry

    /// Reads a snapshot's L1 table, checked as QEMU checks it.
    func readL1(_ entry: SnapshotEntry) throws(ColdframeError) -> [UInt64] {
        guard UInt64(entry.l1EntryCount) * 8 <= Limits.l1ByteCount else {
            throw ColdframeError(.corrupt, "Snapshot L1 table too large", errno: 27)
        }
        guard geometry.isClusterAligned(entry.l1Offset.rawValue), entry.l1Offset.rawValue <= UInt64(Int64.max) else {
            throw ColdframeError(.corrupt, "Snapshot L1 table offset invalid", errno: 22)
        }
        return try file.readWords(count: Int(entry.l1EntryCount), at: entry.l1Offset, "Snapshot L1 table")
    }

    /// The clusters that an L1 table of that many entries takes.
    func l1Run(_ offset: HostOffset, entryCount: Int) -> ClusterRun {
        ClusterRun(
            first: geometry.cluster(of: offset), count: geometry.clusterCount(forByteCount: UInt64(entryCount) * 8))
    }

    /// The L2 table that an L1 entry points to; nil if none.
    func table(_ l1Entry: UInt64) throws(ColdframeError) -> HostOffset? {
        let offset = l1Entry & EntryBits.offsetMask
        guard offset != 0 else { return nil }
        guard geometry.isClusterAligned(offset) else {
            throw ColdframeError(.corrupt, "L2 table offset \(offset) is not aligned to a cluster")
        }
        return HostOffset(offset)
    }

    func readTable(_ offset: HostOffset) throws(ColdframeError) -> [UInt64] {
        try file.readWords(count: Int(geometry.clusterByteCount / 8), at: offset, "L2 table")
    }

    /// Index in `words` of each entry, and the entry.
    func forEachEntry(
        _ words: [UInt64], _ body: (Int, L2Entry) throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        var index = 0
        while index < words.count {
            if words[index] != 0 { try body(index, L2Entry(words[index])) }
            index += geometry.l2EntryWordCount
        }
    }

    /// Adds or removes one reference to each cluster that the table's entries hold, in runs. Clusters in an external
    /// data file have no refcounts. What becomes free is given back to the host as a snapshot's; tables are not, whose
    /// space is small, scattered and soon used again.
    func adjustEntries(
        _ words: [UInt64], raise: Bool, _ transaction: MetadataTransaction
    ) throws(ColdframeError) {
        guard !geometry.hasExternalData else { return }
        var run = ClusterRun(first: 0, count: 0)
        try forEachEntry(words) { (_, entry) throws(ColdframeError) in
            if entry.isCompressed {
                let clusters = entry.compressedRange(geometry).clusters(geometry)
                try transaction.adjust(
                    ClusterRun(first: clusters.lowerBound, count: UInt64(clusters.count)), raise: raise,
                    cause: .snapshot)
            } else if entry.hostOffset != 0 {
                let host = HostOffset(entry.hostOffset)
                guard geometry.isClusterAligned(host.rawValue) else {
                    throw ColdframeError(
                        .corrupt, "Cluster allocation offset \(host.rawValue) is not aligned to a cluster")
                }
                let cluster = geometry.cluster(of: host)
                if run.count > 0, run.end == cluster {
                    run.count += 1
                } else {
                    if run.count > 0 { try transaction.adjust(run, raise: raise, cause: .snapshot) }
                    run = ClusterRun(first: cluster, count: 1)
                }
            }
        }
        if run.count > 0 { try transaction.adjust(run, raise: raise, cause: .snapshot) }
    }

    /// Adds or removes one reference to everything an L1 table reaches, the table itself not included.
    func adjustTree(
        _ l1: [UInt64], raise: Bool, _ transaction: MetadataTransaction, _ work: TableProgress? = nil
    ) throws(ColdframeError) {
        for entry in l1 {
            try work?.step()
            guard let table = try table(entry) else { continue }
            try adjustEntries(try readTable(table), raise: raise, transaction)
            try transaction.adjust(ClusterRun(first: geometry.cluster(of: table), count: 1), raise: raise)
        }
    }
}

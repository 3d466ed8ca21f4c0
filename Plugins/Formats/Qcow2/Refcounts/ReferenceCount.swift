import ColdframeKit

/// How many references each host cluster has, counted from the header down: what the refcounts should say.
///
/// Every L2 table is read once, however many snapshots share it: first the L1 tables tell how often each table is
/// reached, then its entries count as often. Memory is some 4 bytes per cluster of the file and what the L1 tables name.
struct ReferenceCount {
    /// By cluster; those behind the end have none.
    private var counts: [UInt32]
    /// One bit per cluster that the active disk reaches without the COPIED flag: its refcount must not become 1.
    private var uncopied: [UInt64]

    private let geometry: Geometry
    private let walk: TreeWalk
    /// How often each L2 table is reached, by its offset.
    private var tables: [UInt64: UInt32] = [:]
    private var activeTables: Set<UInt64> = []

    /// 2 TiB of file in clusters of 64 KiB; 128 MiB of memory.
    static let clusterLimit: UInt64 = 1 << 25

    /// Counts all of the image. Nothing may change it meanwhile.
    /// - Throws: `.unsupported` for images in which there is something that is not counted here.
    init(_ image: Qcow2Driver) throws(ColdframeError) {
        geometry = image.geometry
        walk = image.operations.walk
        let clusterCount = geometry.clusterCount(forByteCount: image.file.byteCount)
        guard clusterCount <= Self.clusterLimit else {
            throw ColdframeError(
                .unsupported,
                "Image '\(image.displayFilename)' has too many clusters to be counted; 'qemu-img check -r leaks' frees "
                    + "what is leaked while nobody uses it")
        }
        guard !image.extensions.hasBitmaps, !image.store.header.incompatible.contains(.externalDataFile) else {
            throw ColdframeError(
                .unsupported,
                "Image '\(image.displayFilename)' has bitmaps or an external data file, whose clusters are not counted; "
                    + "'qemu-img check -r leaks' frees what is leaked while nobody uses it")
        }
        counts = [UInt32](repeating: 0, count: Int(clusterCount))
        uncopied = [UInt64](repeating: 0, count: Int(clusterCount) / 64 + 1)
        try countMetadata(image)
        let l1 = image.map.state.withLock { ($0.l1, $0.l1Offset) }
        try countL1(l1.0, at: l1.1, isActive: true)
        for entry in image.operations.entries {
            try countL1(try walk.readL1(entry), at: entry.l1Offset, isActive: false)
        }
        try countTables()
    }

    /// References that this cluster has.
    subscript(cluster: UInt64) -> UInt64 {
        cluster < UInt64(counts.count) ? UInt64(counts[Int(cluster)]) : 0
    }

    /// Clusters of the file; the last ones may lie behind its end.
    var clusterCount: UInt64 { UInt64(counts.count) }

    /// Clusters with references among `count` from `first` on.
    func usedCount(_ first: UInt64, count: UInt64) -> UInt64 {
        guard first < clusterCount else { return 0 }
        return UInt64(counts[Int(first)..<Int(min(clusterCount, first + count))].count { $0 > 0 })
    }

    /// The active disk reaches it without the COPIED flag.
    func isUncopied(_ cluster: UInt64) -> Bool {
        cluster < UInt64(counts.count) && uncopied[Int(cluster / 64)] >> (cluster % 64) & 1 == 1
    }

    private mutating func markUncopied(_ cluster: UInt64) { uncopied[Int(cluster / 64)] |= 1 << (cluster % 64) }

    private mutating func countMetadata(_ image: Qcow2Driver) throws(ColdframeError) {
        try add(ClusterRun(first: 0, count: 1), 1)
        let header = image.store.header
        try add(
            ClusterRun(
                first: geometry.cluster(of: header.refcountTableOffset), count: UInt64(header.refcountTableClusterCount)
            ),
            1)
        for offset in image.store.state.withLock({ $0.refcounts.blockOffsets }) where offset != 0 {
            try add(ClusterRun(first: geometry.cluster(of: HostOffset(offset)), count: 1), 1)
        }
        let tableByteCount = UInt64(image.operations.contents.byteCount)
        if tableByteCount > 0 {
            try add(
                ClusterRun(
                    first: geometry.cluster(of: header.snapshotTableOffset),
                    count: geometry.clusterCount(forByteCount: tableByteCount)), 1)
        }
    }

    private mutating func countL1(
        _ l1: [UInt64], at offset: HostOffset, isActive: Bool
    ) throws(ColdframeError) {
        try add(walk.l1Run(offset, entryCount: l1.count), 1)
        for entry in l1 {
            guard let table = try walk.table(entry) else { continue }
            try add(ClusterRun(first: geometry.cluster(of: table), count: 1), 1)
            tables[table.rawValue, default: 0] += 1
            guard isActive else { continue }
            activeTables.insert(table.rawValue)
            if entry & EntryBits.copied == 0 { markUncopied(geometry.cluster(of: table)) }
        }
    }

    private mutating func countTables() throws(ColdframeError) {
        // In the order of the file, so that a disk with a head reads forward.
        for (offset, times) in tables.sorted(by: { $0.key < $1.key }) {
            let words = try walk.readTable(HostOffset(offset))
            let isActive = activeTables.contains(offset)
            var index = 0
            while index < words.count {
                if words[index] != 0 { try count(L2Entry(words[index]), times, isActive: isActive) }
                index += geometry.l2EntryWordCount
            }
        }
    }

    private mutating func count(_ entry: L2Entry, _ times: UInt32, isActive: Bool) throws(ColdframeError) {
        if entry.isCompressed {
            let clusters = entry.compressedRange(geometry).clusters(geometry)
            try add(ClusterRun(first: clusters.lowerBound, count: UInt64(clusters.count)), times)
        } else if entry.hostOffset != 0 {
            let cluster = geometry.cluster(of: HostOffset(entry.hostOffset))
            try add(ClusterRun(first: cluster, count: 1), times)
            if isActive, !entry.isCopied { markUncopied(cluster) }
        }
    }

    private mutating func add(_ run: ClusterRun, _ times: UInt32) throws(ColdframeError) {
        // A last cluster may lie behind the end of the file, never written: it reads as zeros.
        guard run.first < run.end, run.end <= Self.clusterLimit else {
            throw ColdframeError(.corrupt, "Cluster \(run.first) of the image lies outside its file")
        }
        if run.end > UInt64(counts.count) {
            counts.append(contentsOf: repeatElement(0, count: Int(run.end) - counts.count))
            let words = counts.count / 64 + 1
            uncopied.append(contentsOf: repeatElement(0, count: words - uncopied.count))
        }
        for cluster in Int(run.first)..<Int(run.end) {
            let (sum, overflow) = counts[cluster].addingReportingOverflow(times)
            guard !overflow else { throw ColdframeError(.corrupt, "Cluster \(cluster) has too many references") }
            counts[cluster] = sum
        }
    }
}

/// The clusters of a new image: header, refcount table, refcount blocks, L1 table, and for a preallocated one its L2
/// tables and data, in this order.
struct CreateLayout {
    let geometry: Geometry
    let l1EntryCount: UInt64
    let l1ClusterCount: UInt64
    let l2TableCount: UInt64
    /// Guest clusters that get an entry.
    let mappedClusterCount: UInt64
    /// Host clusters for data; none if data lies in a file of its own.
    let dataClusterCount: UInt64
    private(set) var tableClusterCount: UInt64 = 1
    private(set) var blockCount: UInt64 = 1

    var firstTable: UInt64 { 1 }
    var firstBlock: UInt64 { 1 + tableClusterCount }
    var firstL1: UInt64 { firstBlock + blockCount }
    var firstL2: UInt64 { firstL1 + l1ClusterCount }
    var firstData: UInt64 { firstL2 + l2TableCount }
    var clusterCount: UInt64 { firstData + dataClusterCount }

    init(_ options: Qcow2Create.Options, _ geometry: Geometry) {
        self.geometry = geometry
        // QEMU's tools expect an L1 table even of an empty disk.
        l1EntryCount = max(1, geometry.l1EntryCount(forByteCount: options.diskByteCount))
        l1ClusterCount = geometry.clusterCount(forByteCount: l1EntryCount * 8)
        let isPreallocated = options.preallocation != .off && options.diskByteCount > 0
        mappedClusterCount = isPreallocated ? geometry.clusterCount(forByteCount: options.diskByteCount) : 0
        l2TableCount = isPreallocated ? l1EntryCount : 0
        dataClusterCount = geometry.hasExternalData ? 0 : mappedClusterCount
        // The refcounts count themselves: grows until they cover all.
        while blockCount * geometry.refcountBlockEntryCount < clusterCount
            || tableClusterCount * geometry.clusterByteCount / 8 < blockCount
        {
            blockCount = (clusterCount + geometry.refcountBlockEntryCount - 1) / geometry.refcountBlockEntryCount
            tableClusterCount = geometry.clusterCount(forByteCount: blockCount * 8)
        }
    }

    /// The L1 table.
    var l1: [UInt64] {
        (0..<l1EntryCount).map { index in
            index < l2TableCount
                ? geometry.hostOffset(ofCluster: firstL2 + index).rawValue | EntryBits.copied : 0
        }
    }

    /// The refcounts of block `index`.
    func block(_ index: UInt64) -> RefcountBlock {
        let block = RefcountBlock(geometry: geometry)
        let base = index * geometry.refcountBlockEntryCount
        let used = min(clusterCount, base + geometry.refcountBlockEntryCount) - base
        for entry in 0..<Int(used) { block[entry] = 1 }
        return block
    }

    /// L2 table `index` of a preallocated image. With a backing file the clusters have a place and show the backing file.
    func l2Table(_ index: UInt64, showsBacking: Bool) -> [UInt64] {
        var words: [UInt64] = []
        words.reserveCapacity(Int(geometry.clusterByteCount / 8))
        let entries = UInt64(geometry.l2EntryCount)
        for cluster in index * entries..<min(mappedClusterCount, (index + 1) * entries) {
            let place = geometry.hasExternalData ? cluster : firstData + cluster
            let entry = ClusterStatus(
                host: geometry.hostOffset(ofCluster: place), isCopied: true,
                allocated: showsBacking ? 0 : geometry.allSubclusters, zero: 0
            ).entry(geometry)
            words.append(entry.word)
            if geometry.hasExtendedL2 { words.append(entry.bitmap) }
        }
        words.append(contentsOf: repeatElement(0, count: Int(geometry.clusterByteCount / 8) - words.count))
        return words
    }
}

import ColdframeKit
import Synchronization

/// Keeps writes off the image's own metadata: in an image whose refcounts or entries lie, a cluster that is about to be
/// written as data may hold a table.
///
/// Known are the tables that the header, the L1 tables and the refcount table point to. A cluster is in here from when it is written
/// as metadata until its refcount falls to 0. Any thread; a write that hits nothing takes no lock.
final class MetadataGuard: Sendable {
    private let geometry: Geometry
    private let clusters: Guarded<Set<UInt64>>
    /// A set bit says that a cluster with this hash may be in `clusters`. Bits are never cleared. Safe to share: only
    /// atomics are reached through it, and it lives as long as the object.
    nonisolated(unsafe) private let filter: UnsafeMutablePointer<Atomic<UInt64>>
    private let filterMask: UInt64

    /// Sized for `expectedCount` clusters; more make it slower, not wrong.
    init(geometry: Geometry, expectedCount: Int) {
        self.geometry = geometry
        clusters = Guarded([])
        var bitCount = 1 << 16
        while bitCount < expectedCount * 16, bitCount < 1 << 27 { bitCount *= 2 }
        filterMask = UInt64(bitCount - 1)
        filter = .allocate(capacity: bitCount / 64)
        for word in 0..<bitCount / 64 { (filter + word).initialize(to: Atomic(0)) }
    }

    deinit { filter.deallocate() }

    private func hash(_ cluster: UInt64) -> (word: Int, bit: UInt64) {
        let hash = (cluster &* 0x9E37_79B9_7F4A_7C15) >> 32 & filterMask
        return (Int(hash >> 6), 1 << (hash & 63))
    }

    /// The clusters hold metadata from now on.
    func insert(_ run: ClusterRun) {
        for cluster in run.first..<run.end {
            let (word, bit) = hash(cluster)
            filter[word].bitwiseOr(bit, ordering: .releasing)
        }
        clusters.withLock { clusters in
            for cluster in run.first..<run.end { clusters.insert(cluster) }
        }
    }

    /// The clusters are free.
    func remove(_ run: ClusterRun) {
        clusters.withLock { clusters in
            for cluster in run.first..<run.end { clusters.remove(cluster) }
        }
    }

    /// Throws if bytes of a write that is not meant for metadata would fall on some.
    func check(_ host: HostOffset, byteCount: UInt64) throws(ColdframeError) {
        let last = geometry.cluster(of: host + (byteCount - 1))
        for cluster in geometry.cluster(of: host)...last {
            let (word, bit) = hash(cluster)
            guard filter[word].load(ordering: .acquiring) & bit != 0 else { continue }
            if clusters.withLock({ $0.contains(cluster) }) {
                throw ColdframeError(
                    .corrupt,
                    "Preventing invalid write on metadata (\(byteCount) bytes at offset \(host.rawValue)): an entry "
                        + "or a refcount says that cluster \(cluster) holds data or is free")
            }
        }
    }

    func check(_ run: ClusterRun) throws(ColdframeError) {
        try check(geometry.hostOffset(ofCluster: run.first), byteCount: run.count << UInt64(geometry.clusterBits))
    }
}

extension MetadataGuard {
    /// What is known of an image when it is opened. Tables of snapshots are in it as far as their place is known without
    /// reading: their L1 tables, and L2 tables that the active disk shares.
    convenience init(header: Header, l1: [UInt64], refcounts: RefcountTable, contents: SnapshotTable.Contents) {
        let geometry = header.geometry
        self.init(geometry: geometry, expectedCount: l1.count + refcounts.blockOffsets.count)
        func note(_ offset: UInt64, byteCount: UInt64) {
            guard byteCount > 0, offset < Limits.hostByteCount else { return }
            insert(
                ClusterRun(
                    first: geometry.cluster(of: HostOffset(offset)),
                    count: geometry.clusterCount(forByteCount: byteCount)))
        }
        note(0, byteCount: 1)
        note(header.l1Offset.rawValue, byteCount: UInt64(header.l1EntryCount) * 8)
        note(
            header.refcountTableOffset.rawValue,
            byteCount: UInt64(header.refcountTableClusterCount) << UInt64(geometry.clusterBits))
        note(header.snapshotTableOffset.rawValue, byteCount: UInt64(contents.byteCount))
        for entry in contents.entries where UInt64(entry.l1EntryCount) * 8 <= Limits.l1ByteCount {
            note(entry.l1Offset.rawValue, byteCount: UInt64(entry.l1EntryCount) * 8)
        }
        for word in l1 where word & EntryBits.offsetMask != 0 { note(word & EntryBits.offsetMask, byteCount: 1) }
        for offset in refcounts.blockOffsets where offset != 0 { note(offset, byteCount: 1) }
    }
}

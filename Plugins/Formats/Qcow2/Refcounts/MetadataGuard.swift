import ColdframeKit
import Synchronization

/// Keeps writes off the image's own metadata: in an image whose refcounts or entries lie, a cluster that is about to be
/// written may hold a table.
///
/// Known are the tables that the header, the L1 tables and the refcount table point to. A cluster is in here from when it
/// is written as metadata until its refcount falls to 0. Data and new metadata must fall on nothing that is known; what is
/// changed in place, on nothing but what it is. Any thread; a write that hits nothing takes no lock.
final class MetadataGuard: Sendable {
    private let geometry: Geometry
    /// What is known and guarded; the rest is left out.
    let checks: MetadataKinds
    private let clusters: Guarded<[UInt64: MetadataKinds]>
    /// Some cluster is two things at once, so that what is changed in place has to be looked at.
    private let hasConflicts = Atomic<Bool>(false)
    /// A set bit says that a cluster with this hash may be in `clusters`. Bits are never cleared. Safe to share: only
    /// atomics are reached through it, and it lives as long as the object.
    nonisolated(unsafe) private let filter: UnsafeMutablePointer<Atomic<UInt64>>
    private let filterMask: UInt64

    /// Sized for `expectedCount` clusters; more make it slower, not wrong.
    init(geometry: Geometry, checks: MetadataKinds, expectedCount: Int) {
        self.geometry = geometry
        self.checks = checks
        clusters = Guarded([:])
        var bitCount = 1 << 16
        while bitCount < expectedCount * 16, bitCount < 1 << 27 { bitCount *= 2 }
        filterMask = UInt64(bitCount - 1)
        filter = .allocate(capacity: bitCount / 64)
        for word in 0..<bitCount / 64 { (filter + word).initialize(to: Atomic(0)) }
    }

    deinit { filter.deallocate() }

    @inline(__always)
    private func hash(_ cluster: UInt64) -> (word: Int, bit: UInt64) {
        let hash = (cluster &* 0x9E37_79B9_7F4A_7C15) >> 32 & filterMask
        return (Int(hash >> 6), 1 << (hash & 63))
    }

    /// Whether the cluster can be known; true for a few that are not.
    @inline(__always)
    private func mayContain(_ cluster: UInt64) -> Bool {
        let (word, bit) = hash(cluster)
        return filter[word].load(ordering: .acquiring) & bit != 0
    }

    /// The clusters hold this from now on.
    func insert(_ run: ClusterRun, as kind: MetadataKinds) {
        guard checks.contains(kind) else { return }
        for cluster in run.first..<run.end {
            let (word, bit) = hash(cluster)
            filter[word].bitwiseOr(bit, ordering: .releasing)
        }
        let overlaps = clusters.withLock { clusters in
            var overlaps = false
            for cluster in run.first..<run.end {
                let old = clusters[cluster] ?? kind
                if old != kind { overlaps = true }
                clusters[cluster] = old.union(kind)
            }
            return overlaps
        }
        if overlaps { hasConflicts.store(true, ordering: .releasing) }
    }

    /// Those of the clusters that are free no longer hold anything.
    func remove(_ run: ClusterRun, where isFree: (_ cluster: UInt64) -> Bool = { _ in true }) {
        // Most of what becomes free is data, and there may be millions of it.
        for cluster in run.first..<run.end where mayContain(cluster) && isFree(cluster) {
            clusters.withLock { _ = $0.removeValue(forKey: cluster) }
        }
    }

    /// No cluster is known as this any more.
    func forget(_ kind: MetadataKinds) {
        let overlaps = clusters.withLock { clusters in
            clusters = clusters.compactMapValues { kinds in
                let rest = kinds.subtracting(kind)
                return rest.isEmpty ? nil : rest
            }
            return clusters.values.contains { $0.rawValue.nonzeroBitCount > 1 }
        }
        hasConflicts.store(overlaps, ordering: .releasing)
    }

    // MARK: Checks

    /// Throws if bytes of a write to what holds no metadata yet would fall on some.
    func check(_ host: HostOffset, byteCount: UInt64) throws(ColdframeError) {
        let last = geometry.cluster(of: host + (byteCount - 1))
        for cluster in geometry.cluster(of: host)...last where mayContain(cluster) {
            guard let kinds = clusters.withLock({ $0[cluster] }) else { continue }
            throw ColdframeError(
                .corrupt,
                "Preventing invalid write on metadata (overlaps with \(kinds.names)): \(byteCount) bytes at offset "
                    + "\(host.rawValue), where an entry or a refcount says that cluster \(cluster) holds data or is free"
            )
        }
    }

    func check(_ run: ClusterRun) throws(ColdframeError) {
        try check(geometry.hostOffset(ofCluster: run.first), byteCount: run.count << UInt64(geometry.clusterBits))
    }

    /// Throws if the cluster at `offset`, which is about to be changed as what it is, is known as something else as well.
    @inline(__always)
    func checkInPlace(_ offset: HostOffset, as kind: MetadataKinds) throws(ColdframeError) {
        guard hasConflicts.load(ordering: .acquiring) else { return }
        try checkConflict(offset, kind)
    }

    private func checkConflict(_ offset: HostOffset, _ kind: MetadataKinds) throws(ColdframeError) {
        let others = clusters.withLock { $0[geometry.cluster(of: offset)] ?? [] }.subtracting(kind)
        guard !others.isEmpty else { return }
        throw ColdframeError(
            .corrupt,
            "Preventing invalid write on metadata (overlaps with \(others.names)): the cluster at offset "
                + "\(offset.rawValue) is also in use as \(kind.names)")
    }
}

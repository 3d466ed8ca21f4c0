import ColdframeKit

/// Where an image's metadata lies, as far as the guard is to know it.
struct KnownMetadata {
    let geometry: Geometry
    let guardian: MetadataGuard
    /// Clusters of snapshots and bitmaps that may still be told: what a hostile image claims costs no time.
    private var budget = 1 << 20

    init(geometry: Geometry, guardian: MetadataGuard) {
        self.geometry = geometry
        self.guardian = guardian
    }

    private func note(_ offset: HostOffset, byteCount: UInt64, _ kind: MetadataKinds) {
        guard byteCount > 0, offset.rawValue < Limits.hostByteCount else { return }
        guardian.insert(
            ClusterRun(
                first: geometry.cluster(of: offset), count: geometry.clusterCount(forByteCount: byteCount)), as: kind)
    }

    private func noteTables(_ words: [UInt64], _ kind: MetadataKinds) {
        for word in words where word & EntryBits.offsetMask != 0 {
            note(HostOffset(word & EntryBits.offsetMask), byteCount: 1, kind)
        }
    }

    /// L2 tables that the active disk has from now on, some of which a snapshot may have had alone.
    func addActiveTables(_ l1: [UInt64]) { noteTables(l1, .activeL2) }

    /// The header and what it points to, the active tables, the refcounts.
    func addActive(_ header: Header, l1: [UInt64], refcounts: RefcountTable, snapshotTableByteCount: Int) {
        note(HostOffset(0), byteCount: 1, .mainHeader)
        note(header.l1Offset, byteCount: UInt64(header.l1EntryCount) * 8, .activeL1)
        note(
            header.refcountTableOffset,
            byteCount: UInt64(header.refcountTableClusterCount) << UInt64(geometry.clusterBits), .refcountTable)
        note(header.snapshotTableOffset, byteCount: UInt64(snapshotTableByteCount), .snapshotTable)
        noteTables(l1, .activeL2)
        noteTables(refcounts.blockOffsets, .refcountBlock)
    }

    private mutating func spend(_ byteCount: UInt64) -> Bool {
        let count = geometry.clusterCount(forByteCount: byteCount)
        guard count <= UInt64(budget) else { return false }
        budget -= Int(count)
        return true
    }

    mutating func addBitmaps(_ bitmaps: HeaderExtensions.BitmapsExtension) {
        guard spend(bitmaps.directoryByteCount) else { return }
        note(bitmaps.directoryOffset, byteCount: bitmaps.directoryByteCount, .bitmaps)
    }

    /// L1 tables of snapshots, and their L2 tables if those are guarded, for which the L1 tables are read.
    mutating func addSnapshots(_ entries: [SnapshotEntry], _ walk: TreeWalk) {
        for entry in entries where UInt64(entry.l1EntryCount) * 8 <= Limits.l1ByteCount {
            guard spend(UInt64(entry.l1EntryCount) * 8) else { return }
            note(entry.l1Offset, byteCount: UInt64(entry.l1EntryCount) * 8, .inactiveL1)
            // A table that cannot be read cannot be guarded either; whoever needs it finds out.
            guard guardian.checks.contains(.inactiveL2), let words = try? walk.readL1(entry),
                spend(UInt64(words.count) << UInt64(geometry.clusterBits))
            else { continue }
            noteTables(words, .inactiveL2)
        }
    }
}

import ColdframeKit

/// What a change of the disk's size does to the active tables. Each is one transaction, so that snapshots, which share
/// tables with the disk, never see half of it.
extension SnapshotOperations {
    /// Makes the active L1 table at least so long, and the table of snapshots say of each how large its disk is (in old
    /// images it is the active disk's size that counts).
    func reach(l1EntryCount: Int) throws(ColdframeError) {
        exclusive.lock()
        defer { exclusive.unlock() }
        let (l1, l1Offset) = try activeL1()
        guard l1.count < l1EntryCount || !entries.isEmpty else { return }
        try transact(entries) { transaction throws(ColdframeError) in
            guard l1.count < l1EntryCount else { return NewL1(words: l1, offset: l1Offset) }
            try transaction.adjust(self.walk.l1Run(l1Offset, entryCount: l1.count), raise: false)
            let words = l1 + [UInt64](repeating: 0, count: l1EntryCount - l1.count)
            return try self.writeActiveL1(words, [], transaction)
        }
    }

    /// Drops all clusters behind `byteCount` from the active disk, whose size it becomes.
    func shrink(toByteCount byteCount: UInt64) throws(ColdframeError) {
        exclusive.lock()
        defer { exclusive.unlock() }
        let (l1, l1Offset) = try activeL1()
        let clusterCount = geometry.clusterCount(forByteCount: byteCount)
        try transact(entries, header: { $0.diskByteCount = byteCount }) { transaction throws(ColdframeError) in
            var words = Array(l1.prefix(max(1, Int(self.geometry.l1EntryCount(forByteCount: byteCount)))))
            var newTables: [HostOffset] = []
            for index in l1.indices {
                guard let table = try self.walk.table(l1[index]) else { continue }
                let first = UInt64(index) << UInt64(self.geometry.l2Bits)
                let keptCount = clusterCount > first ? min(clusterCount - first, UInt64(self.geometry.l2EntryCount)) : 0
                guard keptCount < UInt64(self.geometry.l2EntryCount) else { continue }
                let rest = try self.cut(table, to: Int(keptCount), transaction)
                if let rest { newTables.append(rest) }
                if index < words.count { words[index] = rest.map { $0.rawValue | EntryBits.copied } ?? 0 }
            }
            try transaction.adjust(self.walk.l1Run(l1Offset, entryCount: l1.count), raise: false)
            return try self.writeActiveL1(words, newTables, transaction)
        }
    }

    /// A table with the first entries of `table`, or none; the disk gives up the others and the table itself.
    private func cut(
        _ table: HostOffset, to keptCount: Int, _ transaction: MetadataTransaction
    ) throws(ColdframeError) -> HostOffset? {
        let words = try walk.readTable(table)
        let keptWordCount = keptCount * geometry.l2EntryWordCount
        try walk.adjustEntries(Array(words[keptWordCount...]), raise: false, transaction)
        try transaction.adjust(ClusterRun(first: geometry.cluster(of: table), count: 1), raise: false)
        guard words[..<keptWordCount].contains(where: { $0 != 0 }) else { return nil }
        let copy = try transaction.allocate(1, for: .activeL2)
        try transaction.writeTable(Array(words[..<keptWordCount]), at: copy)
        return copy
    }
}

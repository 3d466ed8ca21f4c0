import ColdframeKit
import LinuxSystem

/// Create, delete and revert: each is one `MetadataTransaction`, so that a crash leaves the old or the new image, with
/// refcounts and COPIED flags exact in both.
///
/// No requests of the active disk are in flight. The operations exclude each other and the attaching of a state.
final class SnapshotOperations: Sendable {
    let map: ClusterMap
    let store: ClusterStore
    let file: ImageFile
    let geometry: Geometry
    let walk: TreeWalk
    let compression: Compression
    /// Held by whatever changes the snapshot table.
    let exclusive = PlainMutex()
    private let table: Locked<SnapshotTable.Contents>

    init(map: ClusterMap, store: ClusterStore, contents: SnapshotTable.Contents, compression: Compression) {
        self.compression = compression
        self.map = map
        self.store = store
        file = map.file
        geometry = map.geometry
        walk = TreeWalk(file: map.file, geometry: map.geometry)
        table = Locked(contents)
    }

    var contents: SnapshotTable.Contents { table.withLock { $0 } }
    var entries: [SnapshotEntry] { contents.entries }
    func replaceContents(_ contents: SnapshotTable.Contents) { table.withLock { $0 = contents } }

    func index(ofID id: String, in entries: [SnapshotEntry]) throws(ColdframeError) -> Int {
        guard let index = entries.firstIndex(where: { $0.info.id == id }) else {
            throw ColdframeError(.notFound, "Snapshot with id '\(id)' does not exist")
        }
        return index
    }

    func activeL1() throws(ColdframeError) -> (l1: [UInt64], offset: HostOffset) {
        let (l1, offset, isQuiet) = map.state.withLock { ($0.l1, $0.l1Offset, $0.inFlight.isEmpty) }
        guard isQuiet else {
            throw ColdframeError(.busy, "The image is being written; snapshots change only while it is drained")
        }
        return (l1, offset)
    }

    /// Runs `body` in a transaction with the snapshot table `entries` as the outcome.
    func transact(
        _ new: [SnapshotEntry], header change: (inout Header) -> Void = { _ in },
        _ body: (MetadataTransaction) throws(ColdframeError) -> NewL1
    ) throws(ColdframeError) {
        let bytes = try SnapshotTable.encode(new)
        let oldByteCount = contents.byteCount
        let outcome = try store.state.withLock { state throws(ColdframeError) -> (NewL1, [ClusterStore.Freeing]) in
            try self.store.settleHeader(&state)
            let search = try state.refcounts.findFree(from: state.searchStart, limit: 1)?.first
            let transaction = MetadataTransaction(
                table: state.refcounts,
                searchStart: search ?? state.refcounts.missingBlocks(count: 1)[0] * geometry.refcountBlockEntryCount)
            // Tables are written before the transaction is committed, and stay as garbage if it is not.
            defer { state.freshStart = max(state.freshStart, transaction.endOfUse) }
            // What waits for a flush to lose a reference loses it here: the flush before the switch makes it safe, and
            // no request is in flight. Otherwise a refcount could fall to one later, behind the COPIED flags' back.
            let released = state.unlinked + state.waiting[0] + state.waiting[1]
            for item in released { try transaction.adjust(item.run, raise: false, cause: item.cause) }
            let l1 = try body(transaction)
            let tableOffset = try self.writeSnapshotTable(bytes, replacing: state.header, oldByteCount, transaction)
            try self.store.commit(transaction, &state) { header in
                header.l1Offset = l1.offset
                header.l1EntryCount = UInt32(l1.words.count)
                header.snapshotCount = UInt32(new.count)
                header.snapshotTableOffset = tableOffset
                change(&header)
            }
            state.unlinked = []
            state.waiting = [[], []]
            if let first = transaction.freed.map(\.run.first).min() {
                state.searchStart = min(state.searchStart, first)
            }
            return (l1, transaction.freed)
        }
        map.adopt(l1: outcome.0.words, at: outcome.0.offset, newTables: outcome.0.newTables)
        replaceContents(SnapshotTable.Contents(entries: new, byteCount: bytes.count))
        var known = KnownMetadata(geometry: geometry, guardian: store.guardian)
        known.addActiveTables(outcome.0.words)
        if store.guardian.checks.contains(.inactiveL2) {
            store.guardian.forget([.inactiveL1, .inactiveL2])
            known.addSnapshots(new, walk)
        }
        // The disk is drained: only a state that is being stored could take these clusters meanwhile.
        for freed in outcome.1 where store.policy.passesDiscards(of: freed.cause) { store.discardIfFree(freed.run) }
    }

    /// What the active disk's L1 table becomes.
    struct NewL1: Sendable {
        var words: [UInt64]
        var offset: HostOffset
        var newTables: [HostOffset] = []
    }

    private func writeSnapshotTable(
        _ bytes: [UInt8], replacing header: Header, _ oldByteCount: Int, _ transaction: MetadataTransaction
    ) throws(ColdframeError) -> HostOffset {
        if oldByteCount > 0 {
            try transaction.adjust(
                ClusterRun(
                    first: geometry.cluster(of: header.snapshotTableOffset),
                    count: geometry.clusterCount(forByteCount: UInt64(oldByteCount))), raise: false)
        }
        guard !bytes.isEmpty else { return HostOffset(0) }
        let offset = try transaction.allocate(
            geometry.clusterCount(forByteCount: UInt64(bytes.count)), for: .snapshotTable)
        try bytes.withBytes { buffer throws(ColdframeError) in try transaction.write(buffer, at: offset) }
        return offset
    }

    // MARK: Create

    /// The snapshot takes over the active L1 table and the L2 tables that hold COPIED entries, as they are; the active
    /// disk gets copies without the flags. Tables without such entries are shared. So nothing that either can reach is
    /// written in place, and tables written since the last snapshot need no copy at their next write.
    func create(_ request: SnapshotRequest, diskByteCount: UInt64) throws(ColdframeError) -> SnapshotInfo {
        exclusive.lock()
        defer { exclusive.unlock() }
        guard request.annotation.count <= SnapshotTable.annotationLimit else {
            throw ColdframeError(
                .invalidArgument, "A snapshot's annotation has at most \(SnapshotTable.annotationLimit) bytes")
        }
        let (l1, l1Offset) = try activeL1()
        var new = entries
        let info = SnapshotInfo(
            id: try SnapshotTable.nextID(new, floor: request.idFloor), name: request.name,
            dateSeconds: request.dateSeconds, dateNanoseconds: request.dateNanoseconds,
            guestClockNanoseconds: request.guestClockNanoseconds, diskByteCount: diskByteCount,
            annotation: request.annotation)
        new.append(SnapshotEntry(info: info, l1Offset: l1Offset, l1EntryCount: UInt32(l1.count)))
        try transact(new) { transaction throws(ColdframeError) in
            try self.share(l1, diskByteCount: diskByteCount, transaction)
        }
        return info
    }

    /// The L1 table of an active disk that has the content of `l1`, whose owner becomes or is a snapshot. A state that
    /// lies behind the disk stays the snapshot's alone.
    private func share(
        _ l1: [UInt64], diskByteCount: UInt64, _ transaction: MetadataTransaction
    ) throws(ColdframeError) -> NewL1 {
        let count = max(1, Int(geometry.l1EntryCount(forByteCount: diskByteCount)))
        var new = [UInt64](repeating: 0, count: count)
        var newTables: [HostOffset] = []
        for index in 0..<min(count, l1.count) {
            guard let table = try walk.table(l1[index]) else { continue }
            let words = try walk.readTable(table)
            try walk.adjustEntries(words, raise: true, transaction)
            if let cleared = clearedCopy(words) {
                let copy = try transaction.allocate(1, for: .activeL2)
                try transaction.writeTable(cleared, at: copy)
                newTables.append(copy)
                new[index] = copy.rawValue | EntryBits.copied
            } else {
                try transaction.adjust(ClusterRun(first: geometry.cluster(of: table), count: 1), raise: true)
                new[index] = table.rawValue
            }
        }
        return try writeActiveL1(new, newTables, transaction)
    }

    /// The table without COPIED flags; nil if it has none.
    private func clearedCopy(_ words: [UInt64]) -> [UInt64]? {
        var copy = words
        var hadFlag = false
        var index = 0
        while index < copy.count {
            if copy[index] & EntryBits.copied != 0 {
                copy[index] &= ~EntryBits.copied
                hadFlag = true
            }
            index += geometry.l2EntryWordCount
        }
        return hadFlag ? copy : nil
    }

    func writeActiveL1(
        _ words: [UInt64], _ newTables: [HostOffset], _ transaction: MetadataTransaction
    ) throws(ColdframeError) -> NewL1 {
        let offset = try transaction.allocate(
            geometry.clusterCount(forByteCount: UInt64(words.count) * 8), for: .activeL1)
        try transaction.writeTable(words, at: offset)
        return NewL1(words: words, offset: offset, newTables: newTables)
    }

    // MARK: Delete

    /// `progress` may end it by a throw, with nothing changed.
    func delete(id: String, progress: @escaping SnapshotProgress) throws(ColdframeError) {
        exclusive.lock()
        defer { exclusive.unlock() }
        let (l1, l1Offset) = try activeL1()
        var new = entries
        let entry = new.remove(at: try index(ofID: id, in: new))
        let snapshotL1 = try walk.readL1(entry)
        // Each table is looked at twice: when its references go, and when the active disk may have become alone with some.
        let work = TableProgress(tableCount: 2 * snapshotL1.count, geometry, progress)
        try transact(new) { transaction throws(ColdframeError) in
            try self.walk.adjustTree(snapshotL1, raise: false, transaction, work)
            try transaction.adjust(
                self.walk.l1Run(entry.l1Offset, entryCount: snapshotL1.count), raise: false)
            let result = try self.reclaimed(l1, at: l1Offset, after: snapshotL1, transaction, work)
            try work.finish()
            return result
        }
    }

    /// Sets COPIED where the active disk is now the only one that holds a reference. Only what the deleted snapshot
    /// reached can have changed, and that stands at the same L1 index.
    private func reclaimed(
        _ l1: [UInt64], at l1Offset: HostOffset, after snapshotL1: [UInt64], _ transaction: MetadataTransaction,
        _ work: TableProgress
    ) throws(ColdframeError) -> NewL1 {
        var new = l1
        var newTables: [HostOffset] = []
        for index in 0..<min(l1.count, snapshotL1.count) {
            try work.step()
            guard let table = try walk.table(l1[index]), snapshotL1[index] & EntryBits.offsetMask != 0 else { continue }
            let tableRun = ClusterRun(first: geometry.cluster(of: table), count: 1)
            guard try transaction.refcount(ofCluster: tableRun.first) == 1 else { continue }
            new[index] = table.rawValue | EntryBits.copied
            var words = try walk.readTable(table)
            var changed: [Int] = []
            try walk.forEachEntry(words) { (position, entry) throws(ColdframeError) in
                guard !entry.isCompressed, !entry.isCopied, entry.hostOffset != 0 else { return }
                let cluster = geometry.cluster(of: HostOffset(entry.hostOffset))
                if try transaction.refcount(ofCluster: cluster) == 1 { changed.append(position) }
            }
            guard !changed.isEmpty else { continue }
            for position in changed { words[position] |= EntryBits.copied }
            let copy = try transaction.allocate(1, for: .activeL2)
            try transaction.writeTable(words, at: copy)
            try transaction.adjust(tableRun, raise: false)
            newTables.append(copy)
            new[index] = copy.rawValue | EntryBits.copied
        }
        guard new != l1 else { return NewL1(words: l1, offset: l1Offset) }
        try transaction.adjust(walk.l1Run(l1Offset, entryCount: l1.count), raise: false)
        return try writeActiveL1(new, newTables, transaction)
    }

    // MARK: Revert

    /// Returns the size of the disk, which is the snapshot's.
    func revert(toID id: String) throws(ColdframeError) -> UInt64 {
        exclusive.lock()
        defer { exclusive.unlock() }
        let (l1, l1Offset) = try activeL1()
        let entry = entries[try index(ofID: id, in: entries)]
        let snapshotL1 = try walk.readL1(entry)
        let diskByteCount = entry.info.diskByteCount
        guard diskByteCount <= UInt64(Int64.max),
            geometry.l1EntryCount(forByteCount: diskByteCount) * 8 <= Limits.l1ByteCount
        else {
            throw ColdframeError(.corrupt, "Snapshot '\(entry.info.name)' has an impossible disk size \(diskByteCount)")
        }
        try transact(entries, header: { $0.diskByteCount = diskByteCount }) { transaction throws(ColdframeError) in
            let new = try self.share(snapshotL1, diskByteCount: diskByteCount, transaction)
            try self.walk.adjustTree(l1, raise: false, transaction)
            try transaction.adjust(self.walk.l1Run(l1Offset, entryCount: l1.count), raise: false)
            return new
        }
        return diskByteCount
    }
}

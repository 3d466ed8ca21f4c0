import ColdframeKit
import Synchronization

/// Stores the state of a machine: a stream that lies, for readers, behind the end of the snapshot's disk, from the
/// first L1 entry on that no guest cluster uses.
///
/// While it is written nothing points to its clusters; a crash leaks them. `attach` writes L2 tables, a copy of the
/// snapshot's L1 table that has them, and a new snapshot table; one flush; the header's pointer; one flush; then the
/// previous table and L1 copy are freed.
final class VMStateArea: VMStateWriter {
    private let operations: SnapshotOperations
    private let store: ClusterStore
    private let file: ImageFile
    private let geometry: Geometry
    private let corruption: Corruption
    private let onEnd: @Sendable () -> Void
    private let state: Guarded<State>

    private struct State: ~Copyable {
        /// Clusters of the stream in its order, all full but the last.
        var runs: [ClusterRun] = []
        /// Clusters taken and not yet written.
        var spare = ClusterRun(first: 0, count: 0)
        /// What has not been written yet.
        let staging: UnsafeMutableRawBufferPointer
        var stagedByteCount = 0
        var byteCount: UInt64 = 0
        var hasEnded = false

        init(stagingByteCount: Int) {
            staging = .allocate(byteCount: stagingByteCount, alignment: 4096)
        }
        deinit { staging.deallocate() }
    }

    private static let reservedByteCount: UInt64 = 16 << 20

    init(operations: SnapshotOperations, corruption: Corruption, onEnd: @escaping @Sendable () -> Void) {
        self.operations = operations
        self.corruption = corruption
        store = operations.store
        file = operations.file
        geometry = operations.geometry
        self.onEnd = onEnd
        state = Guarded(State(stagingByteCount: max(1 << 20, Int(geometry.clusterByteCount))))
    }

    // MARK: Append

    func append(_ bytes: UnsafeRawBufferPointer) throws(ColdframeError) {
        do {
            try appendChecked(bytes)
        } catch {
            throw corruption.noticeChanging(error)
        }
    }

    private func appendChecked(_ bytes: UnsafeRawBufferPointer) throws(ColdframeError) {
        // The caller's buffer outlives the call, and the closure runs within it.
        nonisolated(unsafe) let bytes = bytes
        try state.withLock { state throws(ColdframeError) in
            guard !state.hasEnded else { throw ColdframeError(.invalidArgument, "The state has ended") }
            var rest = bytes
            while !rest.isEmpty {
                if state.stagedByteCount == 0, rest.count >= state.staging.count {
                    let whole = rest.count & ~Int(self.geometry.clusterMask)
                    try self.writeClusters(&state, UnsafeRawBufferPointer(rebasing: rest[..<whole]))
                    rest = UnsafeRawBufferPointer(rebasing: rest[whole...])
                    continue
                }
                let part = min(rest.count, state.staging.count - state.stagedByteCount)
                UnsafeMutableRawBufferPointer(rebasing: state.staging[state.stagedByteCount...]).copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: rest[..<part]))
                state.stagedByteCount += part
                rest = UnsafeRawBufferPointer(rebasing: rest[part...])
                if state.stagedByteCount == state.staging.count { try self.writeStaged(&state) }
            }
            state.byteCount += UInt64(bytes.count)
        }
    }

    private func writeStaged(_ state: inout State) throws(ColdframeError) {
        guard state.stagedByteCount > 0 else { return }
        let whole = (state.stagedByteCount + Int(geometry.clusterMask)) & ~Int(geometry.clusterMask)
        UnsafeMutableRawBufferPointer(rebasing: state.staging[state.stagedByteCount..<whole]).initializeMemory(
            as: UInt8.self, repeating: 0)
        let staged = UnsafeRawBufferPointer(rebasing: state.staging[..<whole])
        try writeClusters(&state, staged)
        state.stagedByteCount = 0
    }

    /// Writes whole clusters to clusters of their own.
    private func writeClusters(_ state: inout State, _ bytes: UnsafeRawBufferPointer) throws(ColdframeError) {
        let bits = UInt64(geometry.clusterBits)
        var rest = bytes
        while !rest.isEmpty {
            if state.spare.count == 0 {
                state.spare = try store.allocateUnflushed(limit: max(1, Self.reservedByteCount >> bits))
            }
            let count = min(state.spare.count, UInt64(rest.count) >> bits)
            let byteCount = Int(count << bits)
            let run = ClusterRun(first: state.spare.first, count: count)
            try file.write(
                UnsafeRawBufferPointer(rebasing: rest[..<byteCount]), at: geometry.hostOffset(ofCluster: run.first))
            if let last = state.runs.last, last.end == run.first {
                state.runs[state.runs.count - 1].count += count
            } else {
                state.runs.append(run)
            }
            state.spare.first += count
            state.spare.count -= count
            rest = UnsafeRawBufferPointer(rebasing: rest[byteCount...])
        }
    }

    // MARK: Attach

    func attach(
        toSnapshot id: String, annotation: [UInt8], guestClockNanoseconds: UInt64
    ) throws(ColdframeError) -> SnapshotInfo {
        guard annotation.count <= SnapshotTable.annotationLimit else {
            throw ColdframeError(
                .invalidArgument, "A snapshot's annotation has at most \(SnapshotTable.annotationLimit) bytes")
        }
        let info: SnapshotInfo
        do {
            info = try attachAppended(id, annotation, guestClockNanoseconds)
        } catch {
            throw corruption.noticeChanging(error)
        }
        onEnd()
        return info
    }

    private func attachAppended(
        _ id: String, _ annotation: [UInt8], _ guestClockNanoseconds: UInt64
    ) throws(ColdframeError) -> SnapshotInfo {
        try state.withLock { state throws(ColdframeError) in
            guard !state.hasEnded else { throw ColdframeError(.invalidArgument, "The state has ended") }
            try self.writeStaged(&state)
            let byteCount = state.byteCount
            let info = try self.attach(state.runs, id) { info in
                info.vmStateByteCount = byteCount
                info.annotation = annotation
                info.guestClockNanoseconds = guestClockNanoseconds
            }
            if state.spare.count > 0 { self.store.freeNow([state.spare], cause: .other) }
            state.hasEnded = true
            return info
        }
    }

    private func attach(
        _ runs: [ClusterRun], _ id: String, _ change: (inout SnapshotInfo) -> Void
    ) throws(ColdframeError) -> SnapshotInfo {
        operations.exclusive.lock()
        defer { operations.exclusive.unlock() }
        let old = operations.contents
        let index = try operations.index(ofID: id, in: old.entries)
        let entry = old.entries[index]
        guard entry.info.vmStateByteCount == 0 else {
            throw ColdframeError(.alreadyExists, "Snapshot '\(entry.info.name)' has a state already")
        }
        let oldL1 = try operations.walk.readL1(entry)
        var taken: [ClusterRun] = []
        do {
            let l1 = try writeTables(runs, of: entry, oldL1, &taken)
            var new = old.entries
            change(&new[index].info)
            new[index].l1Offset = l1.offset
            new[index].l1EntryCount = UInt32(l1.words.count)
            let bytes = try SnapshotTable.encode(new)
            let table = try allocate(
                geometry.clusterCount(forByteCount: UInt64(bytes.count)), for: .snapshotTable, &taken)
            try file.write(bytes, at: table)
            try store.flush()
            let previous = store.header.snapshotTableOffset
            try store.switchSnapshotTable(to: table)
            operations.replaceContents(SnapshotTable.Contents(entries: new, byteCount: bytes.count))
            release(entry, oldL1, tableAt: previous, old.byteCount)
            return new[index].info
        } catch {
            store.freeNow(taken, cause: .snapshot)
            throw error
        }
    }

    private func allocate(
        _ count: UInt64, for kind: MetadataKinds, _ taken: inout [ClusterRun]
    ) throws(ColdframeError) -> HostOffset {
        let run = try store.allocateContiguous(count)
        store.guardian.insert(run, as: kind)
        taken.append(run)
        return geometry.hostOffset(ofCluster: run.first)
    }

    /// Writes the L2 tables of the state and the L1 table that has them behind the disk's entries.
    private func writeTables(
        _ runs: [ClusterRun], of entry: SnapshotEntry, _ oldL1: [UInt64], _ taken: inout [ClusterRun]
    ) throws(ColdframeError) -> (words: [UInt64], offset: HostOffset) {
        let diskEntries = geometry.l1EntryCount(forByteCount: entry.info.diskByteCount)
        let clusterCount = runs.reduce(0) { $0 + $1.count }
        let tableCount = (clusterCount + UInt64(geometry.l2EntryCount) - 1) / UInt64(geometry.l2EntryCount)
        guard (diskEntries + tableCount) * 8 <= Limits.l1ByteCount else {
            throw ColdframeError(
                .unsupported, "The state is too large for an image with clusters of \(geometry.clusterByteCount) bytes")
        }
        var l1 = Array(oldL1.prefix(Int(diskEntries)))
        l1.append(contentsOf: repeatElement(0, count: Int(diskEntries) - l1.count))
        var words: [UInt64] = []
        words.reserveCapacity(Int(geometry.clusterByteCount / 8))
        for run in runs {
            for cluster in run.first..<run.end {
                words.append(geometry.hostOffset(ofCluster: cluster).rawValue)
                if geometry.hasExtendedL2 { words.append(UInt64(geometry.allSubclusters)) }
                if words.count == Int(geometry.clusterByteCount / 8) { l1.append(try writeTable(&words, &taken)) }
            }
        }
        if !words.isEmpty { l1.append(try writeTable(&words, &taken)) }
        if l1.isEmpty { l1 = [0] }
        let offset = try allocate(
            geometry.clusterCount(forByteCount: UInt64(l1.count) * 8), for: .inactiveL1, &taken)
        var padded = l1
        let clusterWords = Int(geometry.clusterByteCount / 8)
        padded.append(contentsOf: repeatElement(0, count: (clusterWords - l1.count % clusterWords) % clusterWords))
        try file.writeWords(padded, at: offset)
        return (l1, offset)
    }

    private func writeTable(_ words: inout [UInt64], _ taken: inout [ClusterRun]) throws(ColdframeError) -> UInt64 {
        words.append(contentsOf: repeatElement(0, count: Int(geometry.clusterByteCount / 8) - words.count))
        let table = try allocate(1, for: .inactiveL2, &taken)
        try file.writeWords(words, at: table)
        words.removeAll(keepingCapacity: true)
        return table.rawValue
    }

    /// Frees what the switch replaced. An error leaves a leak; the state is attached all the same.
    private func release(
        _ entry: SnapshotEntry, _ oldL1: [UInt64], tableAt table: HostOffset, _ tableByteCount: Int
    ) {
        var runs = [
            operations.walk.l1Run(entry.l1Offset, entryCount: oldL1.count),
            ClusterRun(
                first: geometry.cluster(of: table), count: geometry.clusterCount(forByteCount: UInt64(tableByteCount))),
        ]
        // What an earlier state left behind the disk in this snapshot.
        let diskEntries = Int(geometry.l1EntryCount(forByteCount: entry.info.diskByteCount))
        for word in oldL1.dropFirst(diskEntries) {
            guard let table = try? operations.walk.table(word), let words = try? operations.walk.readTable(table)
            else { continue }
            for word in words where word & EntryBits.compressed == 0 && word & EntryBits.offsetMask != 0 {
                let cluster = geometry.cluster(of: HostOffset(word & EntryBits.offsetMask))
                runs.append(ClusterRun(first: cluster, count: 1))
            }
            runs.append(ClusterRun(first: geometry.cluster(of: table), count: 1))
        }
        store.freeNow(runs.filter { $0.count > 0 }, cause: .snapshot)
    }

    // MARK: Abandon

    func abandon() throws(ColdframeError) {
        let runs = state.withLock { state -> [ClusterRun]? in
            guard !state.hasEnded else { return nil }
            state.hasEnded = true
            return state.runs + (state.spare.count > 0 ? [state.spare] : [])
        }
        guard let runs else { return }
        store.freeNow(runs, cause: .snapshot)
        onEnd()
    }
}

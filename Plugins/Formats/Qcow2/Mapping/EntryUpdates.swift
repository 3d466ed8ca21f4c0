import ColdframeKit

/// Changes of L2 and L1 entries, written through.
extension ClusterMap {
    /// Points the clusters of `run`, which lie under one slice, to host clusters in a row, each the only reference.
    /// Of the guest bytes that they stand for `written` has a new content there, and what was data before has been
    /// copied; the rest keeps its status. Ends the run's allocation and returns the entries that were there before.
    func link(_ run: ClusterRun, to host: HostOffset, written: Range<UInt64>) throws(ColdframeError) -> [L2Entry] {
        let bits = UInt64(geometry.clusterBits)
        return try update(run) { index, old throws(ColdframeError) in
            let status = try ClusterStatus(old, self.geometry)
            let start = (run.first + index) << bits
            let part = written.clamped(to: start..<start + self.geometry.clusterByteCount)
            let allocated =
                self.geometry.subclusters(touching: part.lowerBound - start..<part.upperBound - start)
                | status.data(self.geometry)
            return ClusterStatus(
                host: host + index << bits, isCopied: true, allocated: allocated, zero: status.zero & ~allocated
            ).entry(self.geometry)
        }
    }

    /// Replaces the entries of `run`, which is listed as in flight and lies under one slice, and ends its allocation.
    /// Returns those that were replaced by something else.
    func update(
        _ run: ClusterRun, _ newEntry: (_ index: UInt64, _ old: L2Entry) throws(ColdframeError) -> L2Entry
    ) throws(ColdframeError) -> [L2Entry] {
        defer { wakeWaiters() }
        do {
            return try withSlice(GuestOffset(run.first << UInt64(geometry.clusterBits))) {
                (state, slice) throws(ColdframeError) in
                let old = try self.replace(&state, slice, run, newEntry)
                state.removeInFlight(run)
                return old
            }
        } catch {
            state.withLock { $0.removeInFlight(run) }
            throw error
        }
    }

    /// Replaces the entries of `run`, under the lock. Returns those that were replaced by something else.
    func replace(
        _ state: inout State, _ slice: UnsafeMutablePointer<UInt64>?, _ run: ClusterRun,
        _ newEntry: (_ index: UInt64, _ old: L2Entry) throws(ColdframeError) -> L2Entry
    ) throws(ColdframeError) -> [L2Entry] {
        let first = Int(run.first % UInt64(geometry.sliceEntryCount))
        guard let slice, first + Int(run.count) <= geometry.sliceEntryCount else {
            throw ColdframeError(.corrupt, "L2 table of guest cluster \(run.first) is missing")
        }
        var old: [L2Entry] = []
        var swapped: [UInt64] = []
        swapped.reserveCapacity(Int(run.count) * geometry.l2EntryWordCount)
        for index in 0..<Int(run.count) {
            let entry = L2Entry(slice, first + index, geometry)
            let new = try newEntry(UInt64(index), entry)
            if new != entry { old.append(entry) }
            swapped.append(new.word.bigEndian)
            if geometry.hasExtendedL2 { swapped.append(new.bitmap.bigEndian) }
        }
        guard !old.isEmpty else { return [] }
        let l1Index = Int(run.first >> UInt64(geometry.l2Bits))
        let table = state.l1[l1Index] & EntryBits.offsetMask
        let inTable = (run.first & (UInt64(geometry.l2EntryCount) - 1)) * UInt64(geometry.l2EntryByteCount)
        state.changeCount += 1
        do {
            try swapped.withBytes { bytes throws(ColdframeError) in
                self.file.announce(.updateL2Table)
                try self.file.write(bytes, at: HostOffset(table) + inTable)
            }
        } catch {
            // What the file holds now is unknown: it is read again.
            let sliceMask = UInt64(geometry.sliceByteCount) - 1
            state.cache.remove(table + (inTable & ~sliceMask))
            throw error
        }
        let firstWord = first * geometry.l2EntryWordCount
        for index in swapped.indices { slice[firstWord + index] = UInt64(bigEndian: swapped[index]) }
        return old
    }

    /// Points an L1 entry to a table that is the only reference to it; the table's content is on stable storage.
    func linkTable(_ l1Index: Int, to table: HostOffset) throws(ColdframeError) {
        try state.withLock { state throws(ColdframeError) in
            let word = table.rawValue | EntryBits.copied
            var bytes: [UInt8] = []
            bytes.appendBigEndian(word)
            self.file.announce(.updateL1Table)
            try self.file.write(bytes, at: state.l1Offset + UInt64(l1Index) * 8)
            state.changeCount += 1
            state.cache.removeTable(at: table.rawValue, byteCount: Int(self.geometry.clusterByteCount))
            state.l1[l1Index] = word
        }
    }

    /// Takes over the tables that a transaction has made durable.
    func adopt(l1: [UInt64], at offset: HostOffset, newTables: [HostOffset]) {
        state.withLock { state in
            state.l1 = l1
            state.l1Offset = offset
            state.changeCount += 1
            for table in newTables {
                state.cache.removeTable(at: table.rawValue, byteCount: Int(geometry.clusterByteCount))
            }
        }
    }
}

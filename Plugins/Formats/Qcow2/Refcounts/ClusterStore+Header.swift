import ColdframeKit

/// The header: its fields and names in force, and those in the file.
///
/// A change that fails half-way may stand in the file, though the one before is in force: it is written back, and where that
/// fails as well (a disk that fails for a while) it is owed. Until it is back and durable nothing is allocated, no flush
/// succeeds, no cluster becomes free and the file is not cut: whichever of the two headers a crash leaves, all that it points
/// to is there.
extension ClusterStore {
    /// Commits under the lock; the state then has the new header. Throws with the old state in force.
    func commit(
        _ transaction: MetadataTransaction, _ state: inout State, _ change: (inout Header) -> Void
    ) throws(ColdframeError) {
        // Also if it fails: what it has written is no reason to take those clusters for zeros.
        defer { state.freshStart = max(state.freshStart, transaction.endOfUse) }
        for (run, _) in transaction.taken { try guardian.check(run) }
        do throws(ColdframeError) {
            state.header = try transaction.commit(state.header, change)
        } catch {
            if transaction.hasBegunSwitch { putBack(state.header.encodedFixedFields, &state) }
            throw error
        }
        for (run, kind) in transaction.taken { guardian.insert(run, as: kind) }
        // The transaction may have taken again what it had freed.
        let refcounts = state.refcounts
        for freed in transaction.freed {
            guardian.remove(freed.run) { (try? refcounts.refcount(ofCluster: $0)) == 0 }
        }
    }

    /// Rewrites the header's fields in place, in one sector. Not durable yet.
    func updateHeader(_ change: (inout Header) -> Void) throws(ColdframeError) {
        try state.withLock { state throws(ColdframeError) in
            try self.settleHeader(&state)
            var new = state.header
            change(&new)
            do throws(ColdframeError) {
                try self.file.write(new.encodedFixedFields, at: HostOffset(0))
            } catch {
                self.putBack(state.header.encodedFixedFields, &state)
                throw error
            }
            state.header = new
        }
    }

    /// The same, durably. Throws with `undo` made to what is in force.
    func switchHeader(
        _ change: (inout Header) -> Void, undo: (inout Header) -> Void
    ) throws(ColdframeError) {
        try updateHeader(change)
        do throws(ColdframeError) {
            try flush()
        } catch {
            state.withLock { state in
                undo(&state.header)
                putBack(state.header.encodedFixedFields, &state)
            }
            throw error
        }
    }

    /// Replaces fields, extensions and names, durably (`HeaderSwitch`). Header bytes that we do not know are kept. Throws with
    /// the previous ones in force.
    func rewriteHeader(_ change: (inout HeaderCluster) -> Void) throws(ColdframeError) {
        try state.withLock { state throws(ColdframeError) in
            try self.settleHeader(&state)
            var cluster = HeaderCluster(
                header: state.header, extensions: state.names.extensions, backingFilename: state.names.backingFilename)
            change(&cluster)
            var change = HeaderSwitch(self.file, self.geometry)
            do throws(ColdframeError) {
                cluster = try change.run(from: state.header, to: cluster)
            } catch {
                if let owed = change.owed { self.putBack(owed, &state) }
                throw error
            }
            state.header = cluster.header
            state.names = HeaderNames(extensions: cluster.extensions, backingFilename: cluster.backingFilename)
            if let owed = change.owed { self.putBack(owed, &state) }
        }
    }

    /// Points the header to a snapshot table of as many entries, durably. Throws with the previous one in force.
    func switchSnapshotTable(to table: HostOffset) throws(ColdframeError) {
        let previous = header.snapshotTableOffset
        try switchHeader {
            $0.snapshotTableOffset = table
        } undo: {
            $0.snapshotTableOffset = previous
        }
    }

    /// The file may begin with something else than what is in force, and is to begin with `bytes`.
    private func putBack(_ bytes: [UInt8], _ state: inout State) {
        state.owedHeader = bytes
        // Whoever relies on it tries again.
        try? settleHeader(&state)
    }

    /// Writes back what is owed, durably. Before anything that a header which is not in force would not survive.
    func settleHeader(_ state: inout State) throws(ColdframeError) {
        guard let bytes = state.owedHeader else { return }
        try file.write(bytes, at: HostOffset(0))
        try file.flush()
        state.owedHeader = nil
    }
}

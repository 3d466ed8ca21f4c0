import ColdframeKit

/// What a change must do before the L2 entries that it wants to write may be written.
enum TableStep: Sendable {
    /// Another writer allocates there: wait for it.
    case wait(ClusterRun)
    /// The L2 table is missing or shared with a snapshot: make one of our own. Its clusters are listed as in flight.
    case prepare(l1Index: Int, ClusterRun)
}

extension DiskWriter {
    /// The slice if entries of `run` may be changed now, with `run` cut to what lies in the slice and is not in
    /// flight; nil if `tableStep` must be taken first. Under the map's lock.
    func writableSlice(
        _ state: inout ClusterMap.State, _ slice: UnsafeMutablePointer<UInt64>?, _ run: inout ClusterRun
    ) throws(ColdframeError) -> UnsafeMutablePointer<UInt64>? {
        let l1Index = run.first >> UInt64(geometry.l2Bits)
        guard l1Index < UInt64(state.l1.count) else {
            throw ColdframeError(.corrupt, "L1 table is too small")
        }
        guard let slice, state.l1[Int(l1Index)] & EntryBits.copied != 0 else { return nil }
        let sliceEnd = (run.first / UInt64(geometry.sliceEntryCount) + 1) * UInt64(geometry.sliceEntryCount)
        run.count = min(run.count, sliceEnd - run.first)
        try guardian.checkInPlace(HostOffset(state.l1[Int(l1Index)] & EntryBits.offsetMask), as: .activeL2)
        if let conflict = state.firstConflict(run) {
            guard conflict > run.first else { return nil }
            run.count = conflict - run.first
        }
        return slice
    }

    /// Why `writableSlice` gave none. Under the map's lock.
    func tableStep(_ state: inout ClusterMap.State, _ run: ClusterRun) -> TableStep {
        let first = ClusterRun(first: run.first, count: 1)
        if state.firstConflict(first) != nil { return .wait(first) }
        let l1Index = run.first >> UInt64(geometry.l2Bits)
        // Nobody can be allocating under a table that may not be written, so the whole range is free.
        let all = ClusterRun(first: l1Index << UInt64(geometry.l2Bits), count: UInt64(geometry.l2EntryCount))
        state.inFlight.append(all)
        return .prepare(l1Index: Int(l1Index), all)
    }

    /// Takes the step. Without the map's lock.
    func resolve(_ step: TableStep) throws(ColdframeError) {
        switch step {
        case .wait(let run): map.waitUntilFree(run)
        case .prepare(let l1Index, let run):
            defer { map.endInFlight(run) }
            try prepareTable(l1Index)
        }
    }

    /// The new table is on stable storage before the L1 entry points to it.
    private func prepareTable(_ l1Index: Int) throws(ColdframeError) {
        let (oldTable, l1Offset) = map.state.withLock { ($0.l1[l1Index] & EntryBits.offsetMask, $0.l1Offset) }
        try guardian.checkInPlace(l1Offset + UInt64(l1Index) * 8, as: .activeL1)
        let reserved = try store.takeReserved(limit: 1)
        let table = geometry.hostOffset(ofCluster: reserved.run.first)
        do {
            // A fresh cluster is durably zero since the flush that made it ready: an empty table as it is.
            if oldTable != 0 || !reserved.isFresh {
                let buffer = UnsafeMutableRawBufferPointer.allocate(
                    byteCount: Int(geometry.clusterByteCount), alignment: 4096)
                defer { buffer.deallocate() }
                if oldTable == 0 {
                    buffer.initializeMemory(as: UInt8.self, repeating: 0)
                } else {
                    try file.readMetadata(into: buffer, at: HostOffset(oldTable), "L2 table")
                }
                try file.write(UnsafeRawBufferPointer(buffer), at: table)
                try store.flush()
            }
        } catch {
            store.giveBack(reserved.run)
            throw error
        }
        guardian.insert(reserved.run, as: .activeL2)
        try map.linkTable(l1Index, to: table)
        if oldTable != 0 {
            let run = ClusterRun(first: geometry.cluster(of: HostOffset(oldTable)), count: 1)
            try store.releaseAfterFlush([.init(run: run, cause: .other)])
        }
    }
}

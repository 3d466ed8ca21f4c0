import ColdframeKit

extension Contents {
    private static let batchByteCount = 2 << 20
    /// Runs of one record: with one checksum per cluster it stays below `Limits.payloadByteCount`.
    private static let clustersPerRecord = 8192

    /// The shortest sequence of records that adds up to these contents, in batches of bounded size.
    func forEachBatch(_ body: ([Record]) throws(ColdframeError) -> Void) throws(ColdframeError) {
        var batch: [Record] = []
        var byteCount = 0
        func add(_ record: Record) throws(ColdframeError) {
            batch.append(record)
            byteCount += record.payload.count
            guard byteCount >= Self.batchByteCount else { return }
            try body(batch)
            batch = []
            byteCount = 0
        }
        for snapshot in snapshots {
            var bare = snapshot.record
            bare.info.vmStateByteCount = 0
            try add(.snapshot(bare))
            guard snapshot.info.vmStateByteCount > 0 else { continue }
            for runs in Self.portions(snapshot.state) {
                try add(.stateRuns(generation: snapshot.generation, runs))
            }
            try add(
                .stateAttached(
                    generation: snapshot.generation, byteCount: snapshot.info.vmStateByteCount,
                    guestClockNanoseconds: snapshot.info.guestClockNanoseconds, annotation: snapshot.info.annotation))
        }
        if let revert { try add(.revertBegun(target: revert.target, undo: revert.undo.record)) }
        for generation in suspects.sorted() { try add(.suspect(first: generation, last: generation)) }
        for bitmap in bitmaps { try add(.bitmap(bitmap)) }
        for bucket in index.bucketNumbers {
            for record in Record.preserving(index.entries(ofBucket: bucket)) { try add(record) }
        }
        if !batch.isEmpty { try body(batch) }
    }

    /// Runs in portions that fit into a record.
    static func portions(_ runs: [StoredRun]) -> [[StoredRun]] {
        var portions: [[StoredRun]] = []
        var room = 0
        for run in runs {
            var rest = run
            while !rest.checksums.isEmpty {
                if room < 3 {
                    portions.append([])
                    room = clustersPerRecord
                }
                // A run's own numbers take the room of two checksums.
                let count = min(rest.checksums.count, room - 2)
                portions[portions.count - 1].append(
                    StoredRun(location: rest.location, checksums: Array(rest.checksums.prefix(count))))
                rest.location += UInt32(count)
                rest.checksums.removeFirst(count)
                room -= count + 2
            }
        }
        return portions
    }
}

extension Record {
    /// Records of entries that are in order, neighbours joined into runs.
    static func preserving(_ entries: [(cluster: UInt64, entry: PreservedIndex.Entry)]) -> [Record] {
        // By generation, since a run has one.
        let ordered = entries.sorted { ($0.entry.generation, $0.cluster) < ($1.entry.generation, $1.cluster) }
        var runs: [PreservedRun] = []
        for (cluster, entry) in ordered {
            if let last = runs.indices.last, runs[last].append(cluster, entry) { continue }
            runs.append(
                PreservedRun(
                    cluster: cluster, generation: entry.generation, location: entry.location,
                    checksums: entry.location == 0 ? [] : [entry.checksum], zeroCount: entry.location == 0 ? 1 : 0))
        }
        return preserving(runs)
    }

    /// Records of runs, each of a size that fits.
    static func preserving(_ runs: [PreservedRun]) -> [Record] {
        let roomByteCount = Limits.payloadByteCount - 4
        var records: [[PreservedRun]] = []
        var room = 0
        for run in runs {
            let byteCount = 20 + 4 * run.checksums.count
            if byteCount > room {
                records.append([])
                room = roomByteCount
            }
            records[records.count - 1].append(run)
            room -= byteCount
        }
        return records.map { .preserved($0) }
    }
}

extension PreservedRun {
    /// Adds the entry if it continues the run.
    fileprivate mutating func append(_ cluster: UInt64, _ entry: PreservedIndex.Entry) -> Bool {
        guard cluster == self.cluster + UInt64(clusterCount), entry.generation == generation, clusterCount < 4096
        else { return false }
        if location == 0, entry.location == 0 {
            zeroCount += 1
            return true
        }
        guard location != 0, UInt64(entry.location) == UInt64(location) + UInt64(checksums.count) else { return false }
        checksums.append(entry.checksum)
        return true
    }
}

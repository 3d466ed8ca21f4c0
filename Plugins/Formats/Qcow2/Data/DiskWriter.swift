import ColdframeKit
import Synchronization

/// Writes to the active disk.
///
/// Any number of threads. A subcluster that is the disk's own is written in place, without a lock. Other clusters are
/// allocated: the range is listed as in flight, so that writers of one cluster take turns; data (and what must be
/// copied around it) is written to reserved clusters; then the L2 entries are. A process that dies in between leaves
/// the old content and a leak.
final class DiskWriter: Sendable {
    let map: ClusterMap
    let store: ClusterStore
    let reader: ClusterReader
    let data: DataFile
    let file: ImageFile
    let geometry: Geometry
    let guardian: MetadataGuard
    let compression: Compression
    let compressedSpace: CompressedSpace
    let bitmaps: BitmapStorage
    private let isPrepared = Atomic<Bool>(false)

    init(map: ClusterMap, store: ClusterStore, reader: ClusterReader, compression: Compression, bitmaps: BitmapStorage)
    {
        self.map = map
        self.store = store
        self.reader = reader
        self.compression = compression
        self.bitmaps = bitmaps
        data = store.data
        guardian = store.guardian
        compressedSpace = CompressedSpace(store: store)
        file = map.file
        geometry = map.geometry
    }

    private enum Step: Sendable {
        case inPlace(HostOffset, byteCount: UInt64)
        /// Listed as in flight. `own` is the host cluster that it has already, with other subclusters or reading as
        /// zeros; the run then is one cluster.
        case allocate(ClusterRun, own: HostOffset?)
        case table(TableStep)
    }

    /// Clears feature bits of what we do not maintain, before the image changes for the first time. The format text's
    /// "autoclear_features".
    func prepare() throws(ColdframeError) {
        guard !isPrepared.load(ordering: .acquiring) else { return }
        let maintained =
            (data.isRaw ? Header.rawExternalDataAutoclear : 0) | (bitmaps.isMaintained ? Header.bitmapsAutoclear : 0)
        let kept = store.header.autoclear & maintained
        if store.header.autoclear != kept {
            try store.updateHeader { $0.autoclear = kept }
            try store.flush()
        }
        isPrepared.store(true, ordering: .releasing)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: GuestOffset) throws(ColdframeError) {
        try prepare()
        var done = 0
        while done < buffer.count {
            let position = GuestOffset(offset.rawValue + UInt64(done))
            switch try plan(position, byteCount: UInt64(buffer.count - done)) {
            case .inPlace(let host, let byteCount):
                if !data.isExternal { try guardian.check(host, byteCount: byteCount) }
                data.file.announce(.writeGuestData)
                try data.file.write(
                    UnsafeRawBufferPointer(rebasing: buffer[done..<done + Int(byteCount)]), at: host)
                done += Int(byteCount)
            case .allocate(let run, let own):
                let rest = UnsafeRawBufferPointer(rebasing: buffer[done...])
                done += try writeAllocating(rest, at: position, run, own: own)
            case .table(let step):
                try resolve(step)
            }
        }
    }

    private func plan(_ offset: GuestOffset, byteCount: UInt64) throws(ColdframeError) -> Step {
        try map.withSlice(offset) { (state, slice) throws(ColdframeError) -> Step in
            let bits = UInt64(self.geometry.clusterBits)
            let first = offset.rawValue >> bits
            let skip = offset.rawValue & self.geometry.clusterMask
            var run = ClusterRun(first: first, count: (skip + byteCount - 1) >> bits + 1)
            guard let slice = try self.writableSlice(&state, slice, &run) else {
                return .table(self.tableStep(&state, run))
            }
            let base = Int(first % UInt64(self.geometry.sliceEntryCount))
            let status = try ClusterStatus(L2Entry(slice, base, self.geometry), self.geometry)
            if status.isOwn, let host = status.host {
                let start = try self.checkedHost(host)
                var covered = self.ownByteCount(status, from: skip)
                if covered > 0 {
                    var index: UInt64 = 1
                    while covered == index << bits - skip, index < run.count {
                        let next = try ClusterStatus(L2Entry(slice, base + Int(index), self.geometry), self.geometry)
                        guard next.isOwn, let host = next.host, host == start + index << bits else { break }
                        _ = try self.checkedHost(host)
                        covered += self.ownByteCount(next, from: 0)
                        index += 1
                    }
                    return .inPlace(start + skip, byteCount: min(byteCount, covered))
                }
                run.count = 1
                state.inFlight.append(run)
                return .allocate(run, own: start)
            }
            var count: UInt64 = 1
            while count < run.count {
                let next = try ClusterStatus(L2Entry(slice, base + Int(count), self.geometry), self.geometry)
                guard !next.isOwn else { break }
                count += 1
            }
            run.count = count
            state.inFlight.append(run)
            return .allocate(run, own: nil)
        }
    }

    /// Bytes from byte `skip` of a cluster on that lie in allocated subclusters.
    private func ownByteCount(_ status: ClusterStatus, from skip: UInt64) -> UInt64 {
        let index = skip / geometry.subclusterByteCount
        let run = status.run(from: Int(index), geometry)
        return run.kind == .data ? (index + UInt64(run.count)) * geometry.subclusterByteCount - skip : 0
    }

    /// The host cluster of an entry that is about to be written in place.
    private func checkedHost(_ host: HostOffset) throws(ColdframeError) -> HostOffset {
        let end = host.rawValue + geometry.clusterByteCount
        if !data.isExternal, host.rawValue >= data.file.byteCount {
            // The last cluster of the file may be short; one that begins behind the end was never allocated.
            throw ColdframeError(
                .corrupt, "Cluster at offset \(host.rawValue) lies outside the image file of \(file.byteCount) bytes")
        }
        if end > data.file.byteCount { try data.file.ensureByteCount(end) }
        return host
    }

    /// Returns how many bytes of `buffer` it wrote.
    private func writeAllocating(
        _ buffer: UnsafeRawBufferPointer, at offset: GuestOffset, _ planned: ClusterRun, own: HostOffset?
    ) throws(ColdframeError) -> Int {
        let bits = UInt64(geometry.clusterBits)
        let target: ClusterTarget
        do {
            target = try self.target(planned, own: own)
        } catch {
            map.endInFlight(planned)
            throw error
        }
        let run = target.run
        if run != planned { map.shrinkInFlight(planned, to: run) }
        let skip = offset.rawValue & geometry.clusterMask
        let byteCount = min(UInt64(buffer.count), run.count << bits - skip)
        let written = offset.rawValue..<offset.rawValue + byteCount
        do {
            try copyAround(written, target)
            data.file.announce(.writeGuestData)
            try data.file.write(UnsafeRawBufferPointer(rebasing: buffer[..<Int(byteCount)]), at: target.host + skip)
        } catch {
            map.endInFlight(run)
            if let reserved = target.reserved { store.giveBack(reserved) }
            throw error
        }
        // If this fails the entries may or may not be in the file: the clusters are leaked rather than used twice.
        let old = try map.link(run, to: target.host, written: written)
        if own == nil, !data.isExternal { try store.releaseAfterFlush(references(old, cause: .other)) }
        return Int(byteCount)
    }

    /// Host clusters for the first clusters of a run that is listed as in flight.
    private func target(_ planned: ClusterRun, own: HostOffset?) throws(ColdframeError) -> ClusterTarget {
        if let own { return ClusterTarget(run: planned, host: own, isFresh: false, keepsOwn: true) }
        if data.isExternal {
            return ClusterTarget(run: planned, host: try data.place(planned, geometry), isFresh: false)
        }
        let reserved = try store.takeReserved(limit: planned.count)
        return ClusterTarget(
            run: ClusterRun(first: planned.first, count: reserved.run.count),
            host: geometry.hostOffset(ofCluster: reserved.run.first), isFresh: reserved.isFresh,
            reserved: reserved.run)
    }

    /// The host clusters that entries hold a reference to each.
    func references(_ entries: [L2Entry], cause: FreeingCause) -> [ClusterStore.Freeing] {
        var runs: [ClusterStore.Freeing] = []
        for entry in entries {
            if entry.isCompressed {
                let clusters = entry.compressedRange(geometry).clusters(geometry)
                runs.append(
                    .init(
                        run: ClusterRun(first: clusters.lowerBound, count: UInt64(clusters.count)), cause: cause))
            } else if entry.hostOffset != 0 {
                let cluster = geometry.cluster(of: HostOffset(entry.hostOffset))
                if let last = runs.last, last.run.end == cluster {
                    runs[runs.count - 1].run.count += 1
                } else {
                    runs.append(.init(run: ClusterRun(first: cluster, count: 1), cause: cause))
                }
            }
        }
        return runs
    }
}

/// Where clusters that are being allocated will lie.
struct ClusterTarget: Sendable {
    /// Guest clusters.
    var run: ClusterRun
    var host: HostOffset
    /// The file has zeros there.
    var isFresh: Bool
    /// The host cluster is the guest cluster's already: what is allocated in it stays as it is.
    var keepsOwn = false
    /// Taken from the reserve, to be given back if nothing comes to point to it.
    var reserved: ClusterRun?
}

extension ClusterMap {
    /// Lists less of an allocation as in flight than was planned.
    func shrinkInFlight(_ planned: ClusterRun, to run: ClusterRun) {
        state.withLock { state in
            state.removeInFlight(planned)
            state.inFlight.append(run)
        }
        wakeWaiters()
    }
}

import ColdframeKit
import Synchronization

/// Writes to the active disk.
///
/// Any number of threads. A cluster that is the disk's own is written in place, without a lock. Other clusters are
/// allocated: the range is listed as in flight, so that writers of one cluster take turns; data (and what must be
/// copied around it) is written to reserved clusters; then the L2 entries are. A process that dies in between leaves
/// the old content and a leak.
final class DiskWriter: Sendable {
    let map: ClusterMap
    let store: ClusterStore
    let reader: ClusterReader
    let file: ImageFile
    let geometry: Geometry
    private let isPrepared = Atomic<Bool>(false)

    init(map: ClusterMap, store: ClusterStore, reader: ClusterReader) {
        self.map = map
        self.store = store
        self.reader = reader
        file = map.file
        geometry = map.geometry
    }

    private enum Step: Sendable {
        case inPlace(HostOffset, byteCount: UInt64)
        /// Listed as in flight. `reuse` is a preallocated host cluster that reads as zeros.
        case allocate(ClusterRun, reuse: HostOffset?)
        case table(TableStep)
    }

    /// Clears feature bits of what we do not maintain, before the image changes for the first time. The format text's
    /// "autoclear_features".
    func prepare() throws(ColdframeError) {
        guard !isPrepared.load(ordering: .acquiring) else { return }
        if store.header.autoclear != 0 {
            try store.updateHeader { $0.autoclear = 0 }
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
                try file.write(UnsafeRawBufferPointer(rebasing: buffer[done..<done + Int(byteCount)]), at: host)
                done += Int(byteCount)
            case .allocate(let run, let reuse):
                let rest = UnsafeRawBufferPointer(rebasing: buffer[done...])
                done += try writeAllocating(rest, at: position, run, reuse: reuse)
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
            let entry = L2Entry(slice[base])
            if entry.isWritableInPlace(hasExtendedL2: false) {
                let host = try self.checkedHost(entry)
                var count: UInt64 = 1
                while count < run.count {
                    let next = L2Entry(slice[base + Int(count)])
                    guard next.isWritableInPlace(hasExtendedL2: false),
                        next.hostOffset == host.rawValue + count << bits, try self.checkedHost(next).rawValue > 0
                    else { break }
                    count += 1
                }
                return .inPlace(host + skip, byteCount: min(byteCount, count << bits - skip))
            }
            if entry.isCopied, entry.holdsCluster {
                run.count = 1
                let host = try self.checkedHost(entry)
                state.inFlight.append(run)
                return .allocate(run, reuse: host)
            }
            var count: UInt64 = 1
            while count < run.count {
                let next = L2Entry(slice[base + Int(count)])
                guard !(next.isCopied && next.holdsCluster) else { break }
                count += 1
            }
            run.count = count
            state.inFlight.append(run)
            return .allocate(run, reuse: nil)
        }
    }

    /// The host cluster of an entry that is about to be written in place.
    private func checkedHost(_ entry: L2Entry) throws(ColdframeError) -> HostOffset {
        let host = entry.hostOffset
        guard geometry.isClusterAligned(host) else {
            throw ColdframeError(.corrupt, "Cluster allocation offset \(host) is not aligned to a cluster")
        }
        // The last cluster of the file may be short; one that begins behind the end was never allocated.
        guard host < file.byteCount else {
            throw ColdframeError(
                .corrupt, "Cluster at offset \(host) lies outside the image file of \(file.byteCount) bytes")
        }
        if host + geometry.clusterByteCount > file.byteCount {
            try file.ensureByteCount(host + geometry.clusterByteCount)
        }
        return HostOffset(host)
    }

    /// Returns how many bytes of `buffer` it wrote.
    private func writeAllocating(
        _ buffer: UnsafeRawBufferPointer, at offset: GuestOffset, _ planned: ClusterRun, reuse: HostOffset?
    ) throws(ColdframeError) -> Int {
        let bits = UInt64(geometry.clusterBits)
        var run = planned
        let reserved: ClusterStore.Reserved
        do {
            if let reuse {
                reserved = .init(run: ClusterRun(first: geometry.cluster(of: reuse), count: 1), isFresh: false)
            } else {
                reserved = try store.takeReserved(limit: planned.count)
            }
        } catch {
            map.endInFlight(planned)
            throw error
        }
        if reserved.run.count < planned.count {
            run.count = reserved.run.count
            map.shrinkInFlight(planned, to: run)
        }
        let host = geometry.hostOffset(ofCluster: reserved.run.first)
        let skip = offset.rawValue & geometry.clusterMask
        let byteCount = min(UInt64(buffer.count), run.count << bits - skip)
        do {
            try copyAround(run, offset: offset, byteCount: byteCount, host: host, isFresh: reserved.isFresh)
            try file.write(UnsafeRawBufferPointer(rebasing: buffer[..<Int(byteCount)]), at: host + skip)
        } catch {
            map.endInFlight(run)
            if reuse == nil { store.giveBack(reserved.run) }
            throw error
        }
        // If this fails the entries may or may not be in the file: the clusters are leaked rather than used twice.
        let old = try map.link(run, to: host)
        if reuse == nil { try store.releaseAfterFlush(references(old, givesSpaceBack: false)) }
        return Int(byteCount)
    }

    /// Copies what the clusters hold before and behind the written range.
    private func copyAround(
        _ run: ClusterRun, offset: GuestOffset, byteCount: UInt64, host: HostOffset, isFresh: Bool
    ) throws(ColdframeError) {
        let start = run.first << UInt64(geometry.clusterBits)
        let end = run.end << UInt64(geometry.clusterBits)
        let dataEnd = offset.rawValue + byteCount
        try copy(start..<offset.rawValue, from: start, to: host, isFresh: isFresh)
        try copy(dataEnd..<end, from: start, to: host, isFresh: isFresh)
    }

    /// Copies guest bytes `range` to their place in clusters at `host` that stand for guest bytes from `start` on.
    private func copy(
        _ range: Range<UInt64>, from start: UInt64, to host: HostOffset, isFresh: Bool
    ) throws(ColdframeError) {
        guard !range.isEmpty else { return }
        if isFresh, try readsAsZeros(range) { return }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: 4096)
        defer { buffer.deallocate() }
        try reader.read(into: buffer, at: GuestOffset(range.lowerBound))
        try file.write(UnsafeRawBufferPointer(buffer), at: host + (range.lowerBound - start))
    }

    /// Whether the map alone says that the range reads as zeros.
    func readsAsZeros(_ range: Range<UInt64>) throws(ColdframeError) -> Bool {
        var position = range.lowerBound
        while position < range.upperBound {
            let run = try map.lookup(GuestOffset(position), byteCount: range.upperBound - position)
            switch run.kind {
            case .zero: break
            case .unallocated where !reader.hasBacking(at: position): break
            default: return false
            }
            position += run.byteCount
        }
        return true
    }

    /// The host clusters that entries hold a reference to each.
    func references(_ entries: [L2Entry], givesSpaceBack: Bool) -> [ClusterStore.Freeing] {
        var runs: [ClusterStore.Freeing] = []
        for entry in entries {
            if entry.isCompressed {
                let clusters = entry.compressedRange(geometry).clusters(geometry)
                runs.append(
                    .init(
                        run: ClusterRun(first: clusters.lowerBound, count: UInt64(clusters.count)),
                        givesSpaceBack: false))
            } else if entry.hostOffset != 0 {
                let cluster = geometry.cluster(of: HostOffset(entry.hostOffset))
                if let last = runs.last, last.run.end == cluster, last.givesSpaceBack == givesSpaceBack {
                    runs[runs.count - 1].run.count += 1
                } else {
                    runs.append(.init(run: ClusterRun(first: cluster, count: 1), givesSpaceBack: givesSpaceBack))
                }
            }
        }
        return runs
    }
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

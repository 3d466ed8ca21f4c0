import ColdframeKit

/// Write-zeroes and discard: changes of L2 entries, with ordinary writes only at the ends of an unaligned range.
extension DiskWriter {
    private enum Purpose: Sendable {
        case zero(mayUnmap: Bool)
        case discard
        /// Nothing at all, under which no backing file lies.
        case empty
    }

    private enum Step: Sendable {
        case changed(ClusterRun, old: [L2Entry])
        case table(TableStep)
        /// No L2 table and no backing: zeros as it is.
        case nothing(ClusterRun)
    }

    /// Makes the range read as zeros. `diskByteCount` ends the last cluster.
    func writeZeroes(
        _ range: Range<UInt64>, diskByteCount: UInt64, flags: WriteFlags
    ) throws(ColdframeError) {
        guard !range.isEmpty else { return }
        try prepare()
        if data.isRaw { try zeroRawData(range, mayUnmap: flags.contains(.mayUnmap)) }
        guard let whole = wholeClusters(range, diskByteCount: diskByteCount) else {
            try zeroPartOfCluster(range)
            return
        }
        let start = whole.first << UInt64(geometry.clusterBits)
        let end = whole.end << UInt64(geometry.clusterBits)
        if geometry.version < 3, reader.hasBacking(at: start) {
            // Version 2 has no zero clusters, and an empty entry would show the backing file.
            if flags.contains(.noFallback) {
                throw ColdframeError(.unsupported, "A version 2 image has no zero clusters")
            }
            try writeZeroData(range)
            return
        }
        if range.lowerBound < start { try zeroPartOfCluster(range.lowerBound..<start) }
        try change(whole, .zero(mayUnmap: flags.contains(.mayUnmap) || geometry.version < 3))
        if end < range.upperBound { try zeroPartOfCluster(end..<range.upperBound) }
    }

    /// Gives up whole clusters; the rest of an unaligned range keeps its content.
    func discard(_ range: Range<UInt64>, diskByteCount: UInt64) throws(ColdframeError) {
        guard let whole = wholeClusters(range, diskByteCount: diskByteCount) else { return }
        let start = whole.first << UInt64(geometry.clusterBits)
        guard geometry.version >= 3 || !reader.hasBacking(at: start) else { return }
        try prepare()
        if data.isRaw {
            try zeroRawData(start..<min(whole.end << UInt64(geometry.clusterBits), diskByteCount), mayUnmap: true)
        }
        try change(whole, .discard)
    }

    /// Takes the entries of clusters away under which no backing file lies: they read as zeros by themselves.
    func empty(_ clusters: ClusterRun) throws(ColdframeError) {
        try prepare()
        try change(clusters, .empty)
    }

    /// The clusters that lie within the range; a last cluster that the disk ends in counts as whole.
    private func wholeClusters(_ range: Range<UInt64>, diskByteCount: UInt64) -> ClusterRun? {
        let bits = UInt64(geometry.clusterBits)
        let first = geometry.clusterCount(forByteCount: range.lowerBound)
        let end =
            range.upperBound == diskByteCount
            ? geometry.clusterCount(forByteCount: range.upperBound) : range.upperBound >> bits
        return first < end ? ClusterRun(first: first, count: end - first) : nil
    }

    /// A raw data file must hold the zeros itself, whatever the L2 entries say.
    private func zeroRawData(_ range: Range<UInt64>, mayUnmap: Bool) throws(ColdframeError) {
        try data.file.ensureByteCount(range.upperBound)
        try data.file.node.direct.writeZeroes(
            at: range.lowerBound, byteCount: UInt64(range.count), flags: mayUnmap ? .mayUnmap : [])
    }

    /// Bytes within one cluster: by its subclusters if it has any that lie inside, by data else.
    private func zeroPartOfCluster(_ range: Range<UInt64>) throws(ColdframeError) {
        let size = geometry.subclusterByteCount
        let first = (range.lowerBound + size - 1) / size * size
        let end = range.upperBound / size * size
        guard geometry.hasExtendedL2, first < end, try zeroSubclusters(first..<end) else {
            return try writeZeroData(range)
        }
        try writeZeroData(range.lowerBound..<first)
        try writeZeroData(end..<range.upperBound)
    }

    /// False if the cluster is compressed: then it has no subclusters.
    private func zeroSubclusters(_ range: Range<UInt64>) throws(ColdframeError) -> Bool {
        let offset = GuestOffset(range.lowerBound)
        let start = range.lowerBound & ~geometry.clusterMask
        let mask = geometry.subclusters(touching: range.lowerBound - start..<range.upperBound - start)
        while true {
            let step = try map.withSlice(offset) { (state, slice) throws(ColdframeError) -> TableStep? in
                var run = ClusterRun(first: start >> UInt64(self.geometry.clusterBits), count: 1)
                guard let slice = try self.writableSlice(&state, slice, &run) else {
                    return self.tableStep(&state, run)
                }
                _ = try self.map.replace(&state, slice, run) { _, old throws(ColdframeError) in
                    var status = try ClusterStatus(old, self.geometry)
                    guard status.compressed == nil else { return old }
                    status.zero |= mask
                    status.allocated &= ~mask
                    return status.entry(self.geometry)
                }
                return nil
            }
            guard let step else { return try readsAsZeros(range) }
            try resolve(step)
        }
    }

    private func writeZeroData(_ range: Range<UInt64>) throws(ColdframeError) {
        guard !range.isEmpty else { return }
        let chunk = min(UInt64(range.count), 1 << 20)
        let zeros = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(chunk), alignment: 4096)
        defer { zeros.deallocate() }
        zeros.initializeMemory(as: UInt8.self, repeating: 0)
        var position = range.lowerBound
        while position < range.upperBound {
            let byteCount = min(chunk, range.upperBound - position)
            if try !readsAsZeros(position..<position + byteCount) {
                try write(UnsafeRawBufferPointer(rebasing: zeros[..<Int(byteCount)]), at: GuestOffset(position))
            }
            position += byteCount
        }
    }

    private func change(_ clusters: ClusterRun, _ purpose: Purpose) throws(ColdframeError) {
        var rest = clusters
        while rest.count > 0 {
            let wanted = rest
            let offset = GuestOffset(rest.first << UInt64(geometry.clusterBits))
            let step = try map.withSlice(offset) { (state, slice) throws(ColdframeError) in
                try self.step(&state, slice, wanted, purpose)
            }
            let done: ClusterRun
            switch step {
            case .table(let step):
                try resolve(step)
                continue
            case .nothing(let run): done = run
            case .changed(let run, let old):
                done = run
                try release(old, purpose, of: run)
            }
            rest = ClusterRun(first: done.end, count: rest.end - done.end)
        }
    }

    /// Frees the clusters of replaced entries; in an external file their space goes back at once.
    private func release(_ old: [L2Entry], _ purpose: Purpose, of run: ClusterRun) throws(ColdframeError) {
        guard data.isExternal else {
            var unlinked: [L2Entry] = []
            for entry in old where try !keepsCluster(ClusterStatus(entry, geometry), purpose) { unlinked.append(entry) }
            try store.releaseAfterFlush(references(unlinked, cause: .request))
            return
        }
        guard store.policy.passesDiscards(of: .request), !data.isRaw, !old.isEmpty else { return }
        if case .zero(mayUnmap: false) = purpose { return }
        data.file.discard(
            at: geometry.hostOffset(ofCluster: run.first), byteCount: run.count << UInt64(geometry.clusterBits))
    }

    /// Under the map's lock.
    private func step(
        _ state: inout ClusterMap.State, _ slice: UnsafeMutablePointer<UInt64>?, _ wanted: ClusterRun,
        _ purpose: Purpose
    ) throws(ColdframeError) -> Step {
        var run = wanted
        if slice == nil, !data.isRaw {
            let tableEnd = (run.first >> UInt64(geometry.l2Bits) + 1) << UInt64(geometry.l2Bits)
            run.count = min(run.count, tableEnd - run.first)
            if state.firstConflict(run) == nil, !reader.hasBacking(at: run.first << UInt64(geometry.clusterBits)) {
                return .nothing(run)
            }
        }
        guard let slice = try writableSlice(&state, slice, &run) else { return .table(tableStep(&state, run)) }
        let first = run.first
        let old = try map.replace(&state, slice, run) { index, old throws(ColdframeError) in
            try self.zeroed(old, purpose, at: (first + index) << UInt64(self.geometry.clusterBits))
        }
        return .changed(run, old: old)
    }

    private func zeroed(_ old: L2Entry, _ purpose: Purpose, at offset: UInt64) throws(ColdframeError) -> L2Entry {
        if data.isRaw {
            // The zeros are in the file, for those who read it without us.
            return ClusterStatus(
                host: HostOffset(offset), isCopied: true, allocated: geometry.allSubclusters, zero: 0
            ).entry(geometry)
        }
        if case .empty = purpose { return .empty }
        var status = try ClusterStatus(old, geometry)
        // Nothing there: an empty entry is enough where nothing shows through it.
        if status.host == nil, status.compressed == nil, !reader.hasBacking(at: offset) { return old }
        if !keepsCluster(status, purpose) { status.host = nil }
        status.compressed = nil
        status.allocated = 0
        status.zero = geometry.version >= 3 ? geometry.allSubclusters : 0
        return status.entry(geometry)
    }

    /// Zeroing without leave to unmap keeps the disk's own clusters as a preallocation.
    private func keepsCluster(_ status: ClusterStatus, _ purpose: Purpose) -> Bool {
        if case .zero(mayUnmap: false) = purpose { return status.isOwn }
        return false
    }
}

import ColdframeKit

/// Write-zeroes and discard: changes of L2 entries, with ordinary writes only at the ends of an unaligned range.
extension DiskWriter {
    private enum Purpose: Sendable {
        case zero(mayUnmap: Bool)
        case discard
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
        let whole = wholeClusters(range, diskByteCount: diskByteCount)
        guard let whole else {
            try writeZeroData(range)
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
        if range.lowerBound < start { try writeZeroData(range.lowerBound..<start) }
        try change(whole, .zero(mayUnmap: flags.contains(.mayUnmap) || geometry.version < 3))
        if end < range.upperBound { try writeZeroData(end..<range.upperBound) }
    }

    /// Gives up whole clusters; the rest of an unaligned range keeps its content.
    func discard(_ range: Range<UInt64>, diskByteCount: UInt64) throws(ColdframeError) {
        guard let whole = wholeClusters(range, diskByteCount: diskByteCount) else { return }
        let start = whole.first << UInt64(geometry.clusterBits)
        guard geometry.version >= 3 || !reader.hasBacking(at: start) else { return }
        try prepare()
        try change(whole, .discard)
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

    private func writeZeroData(_ range: Range<UInt64>) throws(ColdframeError) {
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
                try store.releaseAfterFlush(references(released(old, purpose), givesSpaceBack: true))
            }
            rest = ClusterRun(first: done.end, count: rest.end - done.end)
        }
    }

    /// Under the map's lock.
    private func step(
        _ state: inout ClusterMap.State, _ slice: UnsafeMutablePointer<UInt64>?, _ wanted: ClusterRun,
        _ purpose: Purpose
    ) throws(ColdframeError) -> Step {
        var run = wanted
        if slice == nil {
            let tableEnd = (run.first >> UInt64(geometry.l2Bits) + 1) << UInt64(geometry.l2Bits)
            run.count = min(run.count, tableEnd - run.first)
            if state.firstConflict(run) == nil, !reader.hasBacking(at: run.first << UInt64(geometry.clusterBits)) {
                return .nothing(run)
            }
        }
        guard let slice = try writableSlice(&state, slice, &run) else { return .table(tableStep(&state, run)) }
        let first = run.first
        let old = try map.replace(&state, slice, run) { index, old in
            self.zeroed(
                old, purpose,
                hasBacking: self.reader.hasBacking(at: (first + index) << UInt64(self.geometry.clusterBits)))
        }
        return .changed(run, old: old)
    }

    private func zeroed(_ old: L2Entry, _ purpose: Purpose, hasBacking: Bool) -> L2Entry {
        let empty = L2Entry(geometry.version >= 3 ? EntryBits.zero : 0)
        guard old.isCompressed || old.hostOffset != 0 else {
            return hasBacking ? empty : old
        }
        if keepsCluster(old, purpose) { return L2Entry(old.word | EntryBits.zero) }
        return empty
    }

    /// Zeroing without leave to unmap keeps the disk's own clusters as a preallocation.
    private func keepsCluster(_ entry: L2Entry, _ purpose: Purpose) -> Bool {
        if case .zero(mayUnmap: false) = purpose { return entry.isCopied && entry.holdsCluster }
        return false
    }

    /// Of the replaced entries those whose clusters are no longer pointed to.
    private func released(_ old: [L2Entry], _ purpose: Purpose) -> [L2Entry] {
        old.filter { !keepsCluster($0, purpose) }
    }
}

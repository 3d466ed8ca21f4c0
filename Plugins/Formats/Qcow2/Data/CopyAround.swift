import ColdframeKit

/// What must be copied into newly allocated clusters around the bytes that are written there.
extension DiskWriter {
    /// Of the subclusters that `written` touches the whole rest; of the others what has a content of its own. Subclusters
    /// that show the backing file or zeros stay so.
    func copyAround(_ written: Range<UInt64>, _ target: ClusterTarget) throws(ColdframeError) {
        let size = geometry.subclusterByteCount
        let start = target.run.first << UInt64(geometry.clusterBits)
        let end = target.run.end << UInt64(geometry.clusterBits)
        let touchedStart = written.lowerBound / size * size
        let touchedEnd = (written.upperBound + size - 1) / size * size
        if !target.keepsOwn {
            try copyContent(start..<touchedStart, start, target)
            try copyContent(touchedEnd..<end, start, target)
        }
        try copy(touchedStart..<written.lowerBound, start, target)
        if target.keepsOwn, try holdsContent(at: written.upperBound, before: touchedEnd) { return }
        try copy(written.upperBound..<touchedEnd, start, target)
    }

    /// Whether the rest of a subcluster, in the disk's own cluster, has its content already.
    private func holdsContent(at offset: UInt64, before end: UInt64) throws(ColdframeError) -> Bool {
        guard offset < end else { return true }
        if case .data = try map.lookup(GuestOffset(offset), byteCount: end - offset).kind { return true }
        return false
    }

    /// Copies those parts of `range`, whole subclusters, that have a content of their own.
    private func copyContent(
        _ range: Range<UInt64>, _ start: UInt64, _ target: ClusterTarget
    ) throws(ColdframeError) {
        var position = range.lowerBound
        while position < range.upperBound {
            let run = try map.lookup(GuestOffset(position), byteCount: range.upperBound - position)
            switch run.kind {
            case .data, .compressed: try copy(position..<position + run.byteCount, start, target)
            case .zero, .unallocated: break
            }
            position += run.byteCount
        }
    }

    /// Copies guest bytes `range` to their place in clusters that stand for guest bytes from `start` on.
    private func copy(_ range: Range<UInt64>, _ start: UInt64, _ target: ClusterTarget) throws(ColdframeError) {
        guard !range.isEmpty else { return }
        if target.isFresh, try readsAsZeros(range) { return }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: 4096)
        defer { buffer.deallocate() }
        try reader.read(into: buffer, at: GuestOffset(range.lowerBound))
        try data.file.write(UnsafeRawBufferPointer(buffer), at: target.host + (range.lowerBound - start))
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
}

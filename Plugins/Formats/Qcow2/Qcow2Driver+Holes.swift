import ColdframeKit

// Images whose clusters were all mapped when they were made (`preallocation`): much of the data that they speak of is a hole of
// the file, and what is zeroed keeps its clusters.

extension Qcow2Driver: HoleBearing {
    /// The file, if its clusters in use are a tenth and two more than what it takes on the host: QEMU's rule, which `qemu-img map` goes by.
    /// Found out once.
    public func fileWithHoles() throws(ColdframeError) -> BlockNode? {
        if let known = bearsHoles.withLock({ $0 }) { return known ? file.node : nil }
        let found = try looksPreallocated()
        bearsHoles.withLock { $0 = found }
        return found ? file.node : nil
    }

    private func looksPreallocated() throws(ColdframeError) -> Bool {
        // Data in a file of its own has no refcounts that could tell.
        guard !store.data.isExternal, let taken = try file.node.driver.information().allocatedByteCount else {
            return false
        }
        let takenCount = taken / geometry.clusterByteCount
        let threshold = max(takenCount + takenCount / 9, takenCount + 2)
        return try store.usedClusterCount(upTo: threshold) >= threshold
    }
}

extension Qcow2Driver: PlaceReserving {
    public func reservedPlace(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (hostOffset: UInt64?, byteCount: UInt64) {
        try map.withSlice(GuestOffset(offset)) { (_, slice) throws(ColdframeError) in
            let skip = offset & self.geometry.clusterMask
            let base = Int(offset >> UInt64(self.geometry.clusterBits) % UInt64(self.geometry.sliceEntryCount))
            guard let slice else {
                return (nil, min(byteCount, self.geometry.sliceSpan - offset % self.geometry.sliceSpan))
            }
            let host = try ClusterStatus(L2Entry(slice, base, self.geometry), self.geometry).host
            var end = self.geometry.clusterByteCount
            for index in base + 1..<self.geometry.sliceEntryCount {
                let next = try ClusterStatus(L2Entry(slice, index, self.geometry), self.geometry).host
                guard end < skip + byteCount, next == host.map({ $0 + end }) else { break }
                end += self.geometry.clusterByteCount
            }
            return (host.map { $0.rawValue + skip }, min(byteCount, end - skip))
        }
    }
}

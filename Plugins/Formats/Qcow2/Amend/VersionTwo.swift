import ColdframeKit

/// What an image must not hold to be one of version 2, which has no zero clusters and no zstd.
enum VersionTwo {
    /// Throws if a snapshot, whose tables nobody changes, has zero clusters, or if something is compressed with zstd.
    static func check(_ image: Qcow2Image, _ snapshots: [SnapshotEntry]) throws(ColdframeError) {
        let walk = TreeWalk(file: image.file, geometry: image.header.geometry)
        var seen: Set<UInt64> = []
        for snapshot in snapshots {
            try check(try walk.readL1(snapshot), walk, &seen) { (entry) throws(ColdframeError) in
                guard entry.isCompressed || entry.word & EntryBits.zero == 0 else {
                    throw ColdframeError(
                        .unsupported,
                        "Cannot downgrade: snapshot '\(snapshot.info.name)' has clusters that are marked as zeros; "
                            + "delete it first")
                }
                try checkCompression(entry, image)
            }
        }
        guard image.compression == .zstd else { return }
        try check(try image.readL1(), walk, &seen) { (entry) throws(ColdframeError) in
            try checkCompression(entry, image)
        }
    }

    private static func checkCompression(_ entry: L2Entry, _ image: Qcow2Image) throws(ColdframeError) {
        guard !entry.isCompressed || image.compression != .zstd else {
            throw ColdframeError(
                .unsupported,
                "Cannot downgrade an image with zstd compression type and existing compressed clusters")
        }
    }

    /// Looks at every table once, however many snapshots share it.
    private static func check(
        _ l1: [UInt64], _ walk: TreeWalk, _ seen: inout Set<UInt64>,
        _ body: (L2Entry) throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        for word in l1 {
            guard let table = try walk.table(word), seen.insert(table.rawValue).inserted else { continue }
            try walk.forEachEntry(try walk.readTable(table)) { (_, entry) throws(ColdframeError) in try body(entry) }
        }
    }
}

extension Qcow2Driver {
    /// Gives each cluster of the active disk that is marked as zeros what version 2 has for it: nothing at all, or zeros as
    /// data where a backing file would show. Nobody else uses the driver.
    ///
    /// The zeros are content that was flushed long ago, so they are durable as data before their marks go.
    func expandZeroClusters(_ progress: AmendProgress) throws(ColdframeError) {
        let zeros = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Int(geometry.clusterByteCount), alignment: 4096)
        defer { zeros.deallocate() }
        zeros.initializeMemory(as: UInt8.self, repeating: 0)
        let total = 2 * geometry.clusterCount(forByteCount: byteCount)
        try forEachZeroCluster { (cluster) throws(ColdframeError) in
            try progress(cluster, total)
            if reader.hasBacking(at: cluster << UInt64(geometry.clusterBits)) {
                try writer.backZeros(cluster, UnsafeRawBufferPointer(zeros))
            } else {
                try writer.empty(ClusterRun(first: cluster, count: 1))
            }
        }
        try store.flush()
        try forEachZeroCluster { (cluster) throws(ColdframeError) in
            try progress(total / 2 + cluster, total)
            try writer.unmarkZeros(cluster)
        }
    }

    private func forEachZeroCluster(_ body: (_ cluster: UInt64) throws(ColdframeError) -> Void) throws(ColdframeError) {
        let bits = UInt64(geometry.clusterBits)
        let end = geometry.clusterCount(forByteCount: byteCount)
        var cluster: UInt64 = 0
        while cluster < end {
            let run = try map.lookup(GuestOffset(cluster << bits), byteCount: (end - cluster) << bits)
            let next = cluster + run.byteCount >> bits
            if case .zero = run.kind {
                for index in cluster..<next { try body(index) }
            }
            cluster = next
        }
    }
}

extension DiskWriter {
    /// Gives a cluster that is marked as zeros a host cluster with zeros in it; it stays marked.
    fileprivate func backZeros(_ cluster: UInt64, _ zeros: UnsafeRawBufferPointer) throws(ColdframeError) {
        try prepare()
        let run = ClusterRun(first: cluster, count: 1)
        try listInFlight(run)
        var reserved: ClusterRun?
        let host: HostOffset
        do {
            if let own = try ownHost(of: cluster) {
                host = own
                try file.write(zeros, at: own)
            } else {
                let taken = try store.takeReserved(limit: 1)
                reserved = taken.run
                host = geometry.hostOffset(ofCluster: taken.run.first)
                if !taken.isFresh { try file.write(zeros, at: host) }
            }
        } catch {
            map.endInFlight(run)
            if let reserved { store.giveBack(reserved) }
            throw error
        }
        _ = try map.update(run) { _, _ in
            ClusterStatus(host: host, isCopied: true, allocated: 0, zero: self.geometry.allSubclusters)
                .entry(self.geometry)
        }
    }

    private func ownHost(of cluster: UInt64) throws(ColdframeError) -> HostOffset? {
        let status = try map.withSlice(GuestOffset(cluster << UInt64(geometry.clusterBits))) {
            (_, slice) throws(ColdframeError) -> ClusterStatus? in
            guard let slice else { return nil }
            let index = Int(cluster % UInt64(self.geometry.sliceEntryCount))
            return try ClusterStatus(L2Entry(slice, index, self.geometry), self.geometry)
        }
        guard let status, status.isOwn, let host = status.host else { return nil }
        try guardian.check(host, byteCount: geometry.clusterByteCount)
        if host.rawValue + geometry.clusterByteCount > file.byteCount {
            try file.ensureByteCount(host.rawValue + geometry.clusterByteCount)
        }
        return host
    }

    /// What a marked cluster's host cluster holds is its content from now on.
    fileprivate func unmarkZeros(_ cluster: UInt64) throws(ColdframeError) {
        let run = ClusterRun(first: cluster, count: 1)
        try listInFlight(run)
        _ = try map.update(run) { _, old throws(ColdframeError) in
            var status = try ClusterStatus(old, self.geometry)
            guard status.isOwn else {
                throw ColdframeError(.corrupt, "Guest cluster \(cluster) is marked as zeros and has no place for them")
            }
            status.allocated = self.geometry.allSubclusters
            status.zero = 0
            return status.entry(self.geometry)
        }
    }
}

import ColdframeKit

// Dirty bitmaps are the core's while the image is open. The sidecar brings them in at the beginning and takes them at the
// end; what was in use when the agent died, or stood beside a raw file that something else changed, is inconsistent.

extension RawSidecarDriver: BitmapBearing {
    public func loadBitmaps() throws(ColdframeError) -> [DirtyBitmap] {
        let stored = store.contents.withLock { $0.bitmaps }
        var bitmaps: [DirtyBitmap] = []
        for bitmap in stored {
            var bits = DirtyBits(diskByteCount: byteCount, granularity: bitmap.granularity)
            var state = DirtyBitmap.State(name: bitmap.name)
            state.isRecording = bitmap.isRecording
            state.isPersistent = true
            state.isReadOnly = isReadOnly
            state.isInconsistent = bitmap.isInconsistent || bitmap.diskByteCount != byteCount
            if !state.isInconsistent, try !load(bitmap, into: &bits) { state.isInconsistent = true }
            bitmaps.append(DirtyBitmap(bits: bits, state: state))
        }
        return bitmaps
    }

    /// False if what is stored does not match its checksums.
    private func load(_ bitmap: StoredBitmap, into bits: inout DirtyBits) throws(ColdframeError) -> Bool {
        let size = store.file.clusterByteCount
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { buffer.deallocate() }
        for run in bitmap.runs {
            for (index, checksum) in run.checksums.enumerated() {
                let location = run.location + UInt32(index)
                try store.file.read(into: buffer, at: store.file.offset(ofCluster: location), "A bitmap's cluster")
                guard Checksum.of(UnsafeRawBufferPointer(buffer)) == checksum else { return false }
                let position = (Int(run.position) + index) * size
                // What lies behind the disk's end says nothing.
                if position < bits.storedByteCount { bits.load(UnsafeRawBufferPointer(buffer), at: position) }
            }
        }
        return true
    }

    public func checkCanStoreBitmap(
        name: String, granularity: UInt32, diskByteCount: UInt64, beside others: [String]
    ) throws(ColdframeError) {
        try checkMayChange()
        guard name.utf8.count <= Limits.nameByteCount else {
            throw ColdframeError(.invalidArgument, "Bitmap name too long")
        }
        guard Limits.bitmapGranularities.contains(granularity) else {
            throw ColdframeError(
                .invalidArgument,
                "Granularity must be from \(Limits.bitmapGranularities.lowerBound) to "
                    + "\(Limits.bitmapGranularities.upperBound) bytes")
        }
        guard others.count < Limits.bitmapCount else {
            throw ColdframeError(.unsupported, "A sidecar has at most \(Limits.bitmapCount) bitmaps: remove one")
        }
    }

    public func storeBitmaps(_ bitmaps: [DirtyBitmap]) throws(ColdframeError) {
        try checkMayChange()
        let old = store.contents.withLock { $0.bitmaps }
        var records: [Record] = []
        var taken: [ClusterRun] = []
        let names = Set(bitmaps.compactMap(\.name))
        // Those that stay inconsistent stay as they are stored.
        let kept = Set(bitmaps.filter(\.state.isInconsistent).compactMap(\.name))
        for bitmap in old where !names.contains(bitmap.name) { records.append(.bitmapRemoved(name: bitmap.name)) }
        do throws(ColdframeError) {
            for bitmap in bitmaps {
                guard let name = bitmap.name, !kept.contains(name) else { continue }
                records.append(.bitmap(try write(bitmap, name, &taken)))
            }
            guard !records.isEmpty else { return }
            try store.file.flush()
            try store.commit(records)
        } catch {
            if !store.isUncertain.load(ordering: .acquiring) { store.free(taken) }
            throw error
        }
        for bitmap in old where !kept.contains(bitmap.name) { store.free(bitmap.clusters) }
    }

    /// Writes the bits to free clusters, those that are all clear left out.
    private func write(
        _ bitmap: DirtyBitmap, _ name: String, _ taken: inout [ClusterRun]
    ) throws(ColdframeError) -> StoredBitmap {
        let size = store.file.clusterByteCount
        let bits = bitmap.bits
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { buffer.deallocate() }
        var stored = StoredBitmap(
            name: name, granularity: bitmap.granularity, diskByteCount: bits.diskByteCount,
            isRecording: bitmap.state.isRecording, isInconsistent: false, runs: [])
        let bytesOfDisk = UInt64(size) * 8 * UInt64(bitmap.granularity)
        var position = 0
        while position * size < bits.storedByteCount {
            defer { position += 1 }
            let start = UInt64(position).multipliedReportingOverflow(by: bytesOfDisk).partialValue
            guard let dirty = bits.nextDirty(from: start), dirty.lowerBound - start < bytesOfDisk else { continue }
            bits.store(into: buffer, from: position * size)
            let place = try store.allocate(limit: 1)
            taken.append(place)
            try store.file.write(UnsafeRawBufferPointer(buffer), at: store.file.offset(ofCluster: place.first))
            stored.add(UInt32(position), place.first, Checksum.of(UnsafeRawBufferPointer(buffer)))
        }
        guard Record.bitmap(stored).payload.count <= Limits.payloadByteCount else {
            throw ColdframeError(
                .unsupported, "Bitmap '\(name)' is too large for this sidecar: use a coarser granularity", errno: 27)
        }
        return stored
    }

    public func removeStoredBitmap(name: String) throws(ColdframeError) {
        try checkMayChange()
        guard let bitmap = store.contents.withLock({ $0.bitmaps.first { $0.name == name } }) else { return }
        try store.commit([.bitmapRemoved(name: name)])
        store.free(bitmap.clusters)
    }
}

extension StoredBitmap {
    /// Adds a cluster, joined to the last run if it follows it in both places.
    fileprivate mutating func add(_ position: UInt32, _ location: UInt32, _ checksum: UInt32) {
        if let last = runs.last, last.position + UInt32(last.checksums.count) == position,
            last.location + UInt32(last.checksums.count) == location, last.checksums.count < Limits.runClusterCount
        {
            runs[runs.count - 1].checksums.append(checksum)
        } else {
            runs.append(Run(position: position, location: location, checksums: [checksum]))
        }
    }
}

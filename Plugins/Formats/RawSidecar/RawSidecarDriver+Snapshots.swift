import ColdframeKit

extension RawSidecarDriver: SnapshotBearing {
    public var snapshots: [SnapshotInfo] { store.contents.withLock { $0.snapshots.map(\.info) } }

    /// One record and one flush, whatever the size of the disk; another if the guest has not flushed what it wrote.
    public func createSnapshot(_ request: SnapshotRequest) throws(ColdframeError) -> SnapshotInfo {
        try checkMayChange()
        guard request.name.utf8.count <= Limits.nameByteCount, request.annotation.count <= Limits.annotationByteCount
        else {
            throw ColdframeError(
                .invalidArgument,
                "A snapshot's name has at most \(Limits.nameByteCount) bytes, its annotation "
                    + "\(Limits.annotationByteCount)")
        }
        // What the snapshot is to hold lies in the raw file, and must do so after a power loss.
        try durability.flushIfChanged(raw)
        let byteCount = self.byteCount
        let record = store.contents.withLock { contents in
            let greatest = contents.snapshots.compactMap { UInt64($0.info.id) }.max() ?? 0
            return SnapshotRecord(
                generation: contents.nextGeneration,
                info: SnapshotInfo(
                    id: String(max(greatest, request.idFloor) + 1), name: request.name,
                    dateSeconds: request.dateSeconds, dateNanoseconds: request.dateNanoseconds,
                    guestClockNanoseconds: request.guestClockNanoseconds, diskByteCount: byteCount,
                    annotation: request.annotation))
        }
        try store.commit([.snapshot(record)])
        noteReaders()
        return record.info
    }

    /// One record; the space is freed afterwards, a little at a time.
    public func deleteSnapshot(id: String, progress: @escaping SnapshotProgress) throws(ColdframeError) {
        try checkMayChange()
        let snapshot = try snapshot(id)
        try store.commit([.deleted(generation: snapshot.generation)])
        store.free(snapshot.state.map { ClusterRun(first: $0.location, count: UInt32($0.checksums.count)) })
        noteReaders()
        store.noteGarbage()
        store.collectGarbage(bucketLimit: Self.bucketsFreedByDelete)
    }

    private static let bucketsFreedByDelete = 1024

    public func revert(toSnapshot id: String) throws(ColdframeError) {
        try checkMayChange()
        let target = try snapshot(id)
        try checkSuspect(target)
        try revert(to: target)
    }

    public func openSnapshot(id: String) throws(ColdframeError) -> any BlockDriver {
        let snapshot = try snapshot(id)
        try checkSuspect(snapshot)
        return SnapshotDisk(snapshot, raw: raw, store: store)
    }

    func snapshot(_ id: String) throws(ColdframeError) -> Contents.Snapshot {
        try store.contents.withLock { contents throws(ColdframeError) in try contents.snapshot(id: id) }
    }

    func checkMayChange() throws(ColdframeError) {
        guard !isReadOnly else {
            throw ColdframeError(.permission, "Image '\(displayFilename)' is open read-only")
        }
        try checkNotStuck()
    }
}

extension RawSidecarDriver: Resizable {
    /// What snapshots read behind the new end is kept first.
    public func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        try checkMayChange()
        let old = self.byteCount
        if byteCount < old { try keepData(byteCount..<old) }
        try setRawSize(byteCount)
    }

    func setRawSize(_ byteCount: UInt64) throws(ColdframeError) {
        guard byteCount != raw.byteCount else { return }
        guard let resizable = raw.driver as? any Resizable else {
            throw ColdframeError(
                .unsupported,
                "Node '\(raw.name)' cannot change its size: driver '\(raw.driver.driverName)' is not resizable")
        }
        defer { durability.noteChange() }
        try resizable.resize(toByteCount: byteCount)
    }

    /// Keeps what is not zero in the range. What is zero reads so behind the end as well.
    func keepData(_ range: Range<UInt64>) throws(ColdframeError) {
        var next = range.lowerBound
        while next < range.upperBound {
            let extent = try raw.direct.extents(at: next, byteCount: range.upperBound - next, limit: 1)[0]
            if case .zero = extent.kind {} else { try keeper.keep(extent.offset..<extent.end) }
            next = extent.end
        }
    }
}

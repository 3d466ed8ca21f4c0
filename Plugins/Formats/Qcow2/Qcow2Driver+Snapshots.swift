import ColdframeKit

extension Qcow2Driver: VMStateBearing {
    public var snapshots: [SnapshotInfo] { operations.entries.map(\.info) }

    public func createSnapshot(_ request: SnapshotRequest) throws(ColdframeError) -> SnapshotInfo {
        try checkMayChange()
        do throws(ColdframeError) {
            return try operations.create(request, diskByteCount: byteCount)
        } catch {
            throw corruption.noticeChanging(error)
        }
    }

    public func deleteSnapshot(id: String, progress: @escaping SnapshotProgress) throws(ColdframeError) {
        try checkMayChange()
        do throws(ColdframeError) {
            try operations.delete(id: id, progress: progress)
        } catch {
            throw corruption.noticeChanging(error)
        }
    }

    public func revert(toSnapshot id: String) throws(ColdframeError) {
        try checkMayChange()
        do throws(ColdframeError) {
            setDiskByteCount(try operations.revert(toID: id))
        } catch {
            throw corruption.noticeChanging(error)
        }
    }

    public func openSnapshot(id: String) throws(ColdframeError) -> any BlockDriver {
        try SnapshotDisk(entry: entry(id), operations: operations, backing: backingSlot)
    }

    public func beginVMState() throws(ColdframeError) -> any VMStateWriter {
        try checkMayChange()
        guard hasStateWriter.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged
        else {
            throw ColdframeError(.busy, "A state is being stored in this image already")
        }
        return VMStateArea(operations: operations, corruption: corruption) { [self] in
            hasStateWriter.store(false, ordering: .releasing)
        }
    }

    public func openVMState(ofSnapshot id: String) throws(ColdframeError) -> any VMStateReader {
        try StoredVMState(entry: entry(id), operations: operations)
    }

    private func entry(_ id: String) throws(ColdframeError) -> SnapshotEntry {
        let entries = operations.entries
        return entries[try operations.index(ofID: id, in: entries)]
    }

    private func checkMayChange() throws(ColdframeError) {
        guard !isReadOnly else {
            throw ColdframeError(.permission, "Image '\(displayFilename)' is open read-only")
        }
        guard !geometry.hasExternalData else {
            throw ColdframeError(
                .unsupported, "Image '\(displayFilename)' has an external data file, which excludes internal snapshots")
        }
        try writer.prepare()
        writer.compressedSpace.settle()
    }
}

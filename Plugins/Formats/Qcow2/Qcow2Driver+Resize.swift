import ColdframeKit

extension Qcow2Driver: Resizable {
    /// Changes the size of the disk; what is new reads as zeros, whatever a backing file holds there. The node is
    /// drained. Durable when it returns; a crash leaves the old size or the new.
    public func resize(toByteCount wanted: UInt64) throws(ColdframeError) {
        guard !isReadOnly else {
            throw ColdframeError(.permission, "Image '\(displayFilename)' is open read-only")
        }
        guard wanted % 512 == 0 else {
            throw ColdframeError(.invalidArgument, "The new size must be a multiple of 512")
        }
        guard geometry.version >= 3 || snapshots.isEmpty else {
            throw ColdframeError(.unsupported, "Can't resize a v2 image which has snapshots")
        }
        guard wanted <= UInt64(Int64.max), geometry.l1EntryCount(forByteCount: wanted) * 8 <= Limits.l1ByteCount else {
            throw ColdframeError(
                .invalidArgument, "Image size too large for clusters of \(geometry.clusterByteCount) bytes", errno: 27)
        }
        try writer.prepare()
        writer.compressedSpace.settle()
        let old = byteCount
        do throws(ColdframeError) {
            if wanted > old { try grow(from: old, to: wanted) } else if wanted < old { try shrink(to: wanted) }
        } catch {
            throw corruption.noticeChanging(error)
        }
    }

    private func grow(from old: UInt64, to wanted: UInt64) throws(ColdframeError) {
        try operations.reach(l1EntryCount: Int(geometry.l1EntryCount(forByteCount: wanted)))
        if geometry.hasExternalData { try store.data.file.ensureByteCount(wanted) }
        // Behind the old end there may be what a backing file shows, what was in the last cluster, or what a shrinking
        // left behind; it goes before the new size makes it visible.
        try writer.writeZeroes(old..<wanted, diskByteCount: wanted, flags: .mayUnmap)
        try store.flush()
        try store.switchHeader {
            $0.diskByteCount = wanted
        } undo: {
            $0.diskByteCount = old
        }
        setDiskByteCount(wanted)
    }

    private func shrink(to wanted: UInt64) throws(ColdframeError) {
        try operations.shrink(toByteCount: wanted)
        setDiskByteCount(wanted)
        // The content behind the end is gone already; a file that keeps its length does no harm.
        if geometry.hasExternalData { try? store.data.file.truncate(toByteCount: wanted) }
    }
}

import ColdframeKit

// A revert writes the snapshot's content over the raw file, which takes as long as what differs. A record says that it
// is under way, and a snapshot that nobody sees, its undo, keeps what was there. So a failure is undone, and an open
// after a crash finishes what had begun: the disk is the old one until the first record is durable, the new one after.

extension RawSidecarDriver {
    func revert(to target: Contents.Snapshot) throws(ColdframeError) {
        try durability.flushIfChanged(raw)
        let byteCount = self.byteCount
        let undo = store.contents.withLock { contents in
            SnapshotRecord(
                generation: contents.nextGeneration,
                info: SnapshotInfo(
                    id: "undo-\(contents.nextGeneration)", name: "undo", dateSeconds: 0, diskByteCount: byteCount))
        }
        try store.commit([.revertBegun(target: target.generation, undo: undo)])
        do throws(ColdframeError) {
            try keepWhatDiffers(from: target)
            try restore(target)
        } catch {
            try undoRevert(undo, because: error)
        }
        try endRevert(undo)
    }

    /// After a crash: goes on where the revert was. Every step may be repeated.
    func finishRevert() throws(ColdframeError) {
        guard let revert = store.contents.withLock({ $0.revert }) else { return }
        let target = try store.contents.withLock { contents throws(ColdframeError) in
            contents.snapshots[try contents.position(revert.target)]
        }
        try keepWhatDiffers(from: target)
        try restore(target)
        try endRevert(revert.undo.record)
    }

    /// The raw file is durably what it should be; the undo goes.
    private func endRevert(_ undo: SnapshotRecord) throws(ColdframeError) {
        do throws(ColdframeError) {
            try store.commit([.revertEnded(undo: undo.generation)])
        } catch {
            // The log still says that the revert is under way: a later open would do it again, over newer writes.
            isStuck.store(true, ordering: .releasing)
            throw error
        }
        noteReaders()
        store.noteGarbage()
        store.collectGarbage(bucketLimit: 1024)
    }

    private func undoRevert(_ undo: SnapshotRecord, because cause: ColdframeError) throws(ColdframeError) -> Never {
        do throws(ColdframeError) {
            try restore(Contents.Snapshot(record: undo))
            try endRevert(undo)
        } catch {
            isStuck.store(true, ordering: .releasing)
            throw ColdframeError(
                cause.code,
                "\(cause.message); going back failed too: \(error.message). The revert is finished as soon as it can be",
                errno: cause.errno)
        }
        throw cause
    }

    /// Keeps, for the undo and for snapshots that read it, all that `restore` is going to change.
    private func keepWhatDiffers(from target: Contents.Snapshot) throws(ColdframeError) {
        let bits = store.clusterBits
        try forEachRun(of: target) { (range, _) throws(ColdframeError) in
            try keeper.keep(range.lowerBound..<min(range.upperBound, max(raw.byteCount, range.lowerBound + 1)))
        }
        let size = target.info.diskByteCount
        if size < raw.byteCount { try keepData((size >> bits) << bits..<raw.byteCount) }
    }

    /// Makes the raw file what `target` holds, durably.
    private func restore(_ target: Contents.Snapshot) throws(ColdframeError) {
        let size = target.info.diskByteCount
        defer { durability.noteChange() }
        if size > raw.byteCount { try setRawSize(size) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.restoredByteCount, alignment: 4096)
        defer { buffer.deallocate() }
        try forEachRun(of: target) { (range, source) throws(ColdframeError) in
            guard case .stored(let first) = source else {
                return try raw.direct.writeZeroes(
                    at: range.lowerBound, byteCount: range.upperBound - range.lowerBound, flags: .mayUnmap)
            }
            var done: UInt64 = 0
            while range.lowerBound + done < range.upperBound {
                let count = min(UInt64(buffer.count), range.upperBound - range.lowerBound - done)
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(count)])
                try store.file.read(
                    into: part, at: store.file.offset(ofCluster: first) + done, "A preserved cluster")
                try raw.direct.write(UnsafeRawBufferPointer(part), at: range.lowerBound + done)
                done += count
            }
        }
        if size < raw.byteCount { try setRawSize(size) }
        try raw.direct.flush()
    }

    private static var restoredByteCount: Int { 4 << 20 }

    /// The ranges of the target that lie in the sidecar, within its size, with where they lie. Bucket by bucket, since
    /// the index may grow meanwhile.
    private func forEachRun(
        of target: Contents.Snapshot,
        _ body: (Range<UInt64>, PreservedIndex.Source) throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        let bits = store.clusterBits
        let size = target.info.diskByteCount
        for bucket in store.contents.withLock({ $0.index.bucketNumbers }) {
            let clusters = PreservedIndex.clusters(ofBucket: bucket)
            var next = clusters.lowerBound
            while next < clusters.upperBound, next << bits < size {
                let run = store.contents.withLock {
                    $0.index.run(next..<clusters.upperBound, from: target.generation)
                }
                let range = next << bits..<min(size, (next + run.clusterCount) << bits)
                if run.source != .raw { try body(range, run.source) }
                next += run.clusterCount
            }
        }
    }
}

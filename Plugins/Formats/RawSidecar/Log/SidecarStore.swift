import ColdframeKit
import LinuxSystem
import Synchronization

/// An open sidecar: its contents in memory, and the one way to change them, `commit`.
///
/// Any thread. Contents are looked at under a short lock; the log is written by the leader of a group commit, without it.
final class SidecarStore: Sendable {
    let file: SidecarFile
    let uuid: [UInt8]
    /// What the records add up to.
    let contents: Locked<Contents>
    private let allocator: Locked<ClusterAllocator>
    private let queue = CommitQueue<[Record]>()
    /// Used by the queue's leader, and before and after there are others.
    private let log: Locked<LogState>
    /// Counts changes of the contents: whoever read the raw file looks whether it may have been too late.
    let changeCount = Atomic<UInt64>(0)
    /// Set while the log must be settled before the raw file may change.
    let isUncertain = Atomic<Bool>(false)

    /// Buckets of the index that are still to be looked through, last first.
    let garbage = Locked<[UInt64]>([])
    let hasGarbage = Atomic<Bool>(false)

    private struct LogState {
        var writer: LogWriter
        var superblock: Superblock
        /// The log's size when it was last written anew.
        var compactByteCount: UInt64
        /// A superblock may or may not have reached the file: nothing is written but another.
        var mustSwitch = false
    }

    init(_ opened: OpenedSidecar) {
        file = opened.file
        uuid = opened.superblock.uuid
        contents = Locked(opened.contents)
        allocator = Locked(opened.allocator)
        let writer = LogWriter(
            file: opened.file, seed: opened.superblock.logSeed, end: opened.scan.end, segments: opened.scan.segments,
            byteCount: opened.scan.byteCount)
        log = Locked(LogState(writer: writer, superblock: opened.superblock, compactByteCount: 0))
    }

    var clusterBits: UInt64 { file.clusterBits }
    var clusterByteCount: UInt64 { UInt64(file.clusterByteCount) }

    // MARK: Open and close

    /// Marks the sidecar as in use, durably, before anything changes.
    func begin(stamp: RawStamp) throws(ColdframeError) {
        try log.withLock { log throws(ColdframeError) in
            log.writer.distrustTail()
            try log.writer.settle()
            try self.writeSuperblock(&log) { superblock in
                superblock.isInUse = true
                superblock.stamp = stamp
            }
        }
    }

    /// Records that the image was closed in order, and what the raw file looks like.
    func end(stamp: RawStamp) throws(ColdframeError) {
        try log.withLock { log throws(ColdframeError) in
            if log.mustSwitch { try self.compact(&log) }
            try log.writer.settle()
            try self.file.flush()
            try self.writeSuperblock(&log) { superblock in
                superblock.isInUse = false
                superblock.stamp = stamp
            }
        }
    }

    private func writeSuperblock(
        _ log: inout LogState, _ change: (inout Superblock) -> Void
    ) throws(ColdframeError) {
        var superblock = log.superblock
        change(&superblock)
        superblock.sequence += 1
        superblock.recordCount = log.writer.end.sequence
        try file.write(superblock.encoded, at: Superblock.slot(ofSequence: superblock.sequence))
        try file.flush()
        log.superblock = superblock
    }

    // MARK: Space

    /// Takes free clusters: neighbours, at least one, at most `limit`.
    func allocate(limit: Int) throws(ColdframeError) -> ClusterRun {
        try allocator.withLock { allocator throws(ColdframeError) in try allocator.allocate(limit: limit) }
    }

    /// Gives clusters back that nothing durable refers to.
    func free(_ runs: [ClusterRun]) {
        allocator.withLock { allocator in
            for run in runs { allocator.free(run) }
        }
        for run in runs { file.discard(run) }
    }

    var usedClusterCount: UInt64 { allocator.withLock { $0.usedCount } }

    // MARK: Commit

    /// Makes the records, and all data written before, durable; then they are part of `contents`. On a throw neither is.
    func commit(_ records: [Record]) throws(ColdframeError) {
        try queue.commit(records) { (batch) throws(ColdframeError) in
            let records = batch.flatMap { $0 }
            // A batch must be acceptable before it is written: what does not apply to a copy must not reach the log.
            try self.check(records)
            try self.write(records)
            self.contents.withLock { contents in
                for record in records { try? contents.apply(record) }
            }
            self.changeCount.add(1, ordering: .acquiringAndReleasing)
        }
    }

    private func check(_ records: [Record]) throws(ColdframeError) {
        var copy: Contents?
        for record in records {
            // The common one cannot fail but for want of room.
            if case .preserved(let runs) = record, copy == nil {
                let count = contents.withLock { $0.index.count }
                guard count + runs.reduce(0, { $0 + $1.clusterCount }) <= Limits.preservedCount else {
                    throw ColdframeError(
                        .io, "The sidecar keeps as many clusters as it can: delete a snapshot", errno: 28)
                }
                continue
            }
            var changed = copy ?? contents.withLock { $0 }
            try changed.apply(record)
            copy = changed
        }
    }

    private func write(_ records: [Record]) throws(ColdframeError) {
        do throws(ColdframeError) {
            try log.withLock { log throws(ColdframeError) in
                let limit = max(4 << 20, 2 * log.compactByteCount)
                if log.mustSwitch || log.writer.byteCount > limit { try self.compact(&log) }
                try log.writer.append(records) { (count) throws(ColdframeError) in
                    try self.allocator.withLock { allocator throws(ColdframeError) in
                        try allocator.allocate(exactly: count)
                    }
                }
            }
            isUncertain.store(false, ordering: .releasing)
        } catch {
            if log.withLock({ $0.writer.isUncertain || $0.mustSwitch }) {
                isUncertain.store(true, ordering: .releasing)
            }
            throw error
        }
    }

    /// Before the raw file changes without a commit: makes sure that no failed record can come back.
    func settle() throws(ColdframeError) {
        guard isUncertain.load(ordering: .acquiring) else { return }
        try log.withLock { log throws(ColdframeError) in
            if log.mustSwitch { try self.compact(&log) }
            try log.writer.settle()
        }
        isUncertain.store(false, ordering: .releasing)
    }

    /// The same as after a long time of use, at once.
    func writeLogAnew() throws(ColdframeError) {
        try log.withLock { log throws(ColdframeError) in try self.compact(&log) }
    }

    /// Writes the log anew, without what has been overtaken, and switches to it by a superblock.
    private func compact(_ log: inout LogState) throws(ColdframeError) {
        let snapshot = contents.withLock { $0 }
        let count = LogWriter.firstClusterCount(clusterBits: clusterBits)
        let first = try allocator.withLock { allocator throws(ColdframeError) in try allocator.allocate(exactly: count)
        }
        let seed = SystemRandom.bytes(4).reduce(0) { $0 << 8 | UInt32($1) }
        var taken = [first]
        var writer = LogWriter(file: file, segment: first, seed: seed)
        do throws(ColdframeError) {
            try file.ensureByteCount(file.offset(ofCluster: first.first) + (UInt64(first.count) << clusterBits))
            try snapshot.forEachBatch { (records) throws(ColdframeError) in
                try writer.append(records) { (count) throws(ColdframeError) in
                    let run = try self.allocator.withLock { allocator throws(ColdframeError) in
                        try allocator.allocate(exactly: count)
                    }
                    taken.append(run)
                    return run
                }
            }
            // What lies behind the end of the new log may look like its records.
            writer.distrustTail()
            try writer.settle()
        } catch {
            free(taken)
            throw error
        }
        let old = log.writer
        log.writer = writer
        do throws(ColdframeError) {
            try writeSuperblock(&log) { superblock in
                superblock.logCluster = first.first
                superblock.logClusterCount = first.count
                superblock.logSeed = seed
            }
        } catch {
            // Which log is in force is not known now. Both stay, and the next step is to write a third.
            log.superblock.sequence += 2
            log.mustSwitch = true
            throw error
        }
        log.mustSwitch = false
        log.compactByteCount = writer.byteCount
        free(old.segments)
    }
}

import ColdframeKit
import LinuxSystem
import QMPWire
import Synchronization

/// An open raw image with its sidecar.
///
/// The raw file is the disk, always and as it is; without a snapshot a request costs two looks at a flag. With one, what
/// a request changes is kept first (`CopyBeforeWrite`). Data methods run on any number of threads; `SnapshotBearing`'s
/// operations and `resize` run while the node is drained, one at a time.
public final class RawSidecarDriver: BlockDriver {
    public let driverName = "raw-sidecar"
    public let threadModel = ThreadModel.parallel
    public let isReadOnly: Bool

    let raw: BlockNode
    let store: SidecarStore
    let keeper: CopyBeforeWrite
    let durability = RawDurability()
    private let options: Options
    /// There is a snapshot whose content must be kept.
    let hasReaders = Atomic<Bool>(false)
    /// A revert failed halfway and could not be undone: the raw file is of no one moment until it has been finished.
    let isStuck = Atomic<Bool>(false)
    private let finishing = PlainMutex()
    let hasStateWriter = Atomic<Bool>(false)

    /// What may be set when an image is opened.
    public struct Options: Sendable {
        public var isReadOnly = false
        /// Snapshots that may be wrong can be opened and reverted to.
        public var allowsSuspect = false
        /// Discards reach the raw file (`discard=unmap`).
        public var passesDiscards = true
        public init() {}
    }

    /// Opens the image. Blocks. If the raw file is not as it was left, its snapshots are suspect from now on.
    public init(raw: BlockNode, sidecar: BlockNode, options: Options) throws(ColdframeError) {
        self.raw = raw
        self.options = options
        isReadOnly = options.isReadOnly
        let opened = try OpenedSidecar.read(sidecar)
        store = SidecarStore(opened)
        keeper = CopyBeforeWrite(raw: raw, store: store)
        try noteChangesBehindOurBack(opened)
        if options.isReadOnly {
            if opened.contents.revert != nil {
                throw ColdframeError(
                    .unsupported,
                    "A revert of '\(raw.driver.displayFilename)' was interrupted: open the image for writing once to "
                        + "finish it")
            }
        } else {
            try finishRevert()
        }
        noteReaders()
    }

    private func noteChangesBehindOurBack(_ opened: OpenedSidecar) throws(ColdframeError) {
        let found = try RawStamp(raw)
        let isForeign = opened.superblock.isForeign(found)
        var records: [Record] = []
        if isForeign, let last = opened.contents.snapshots.last?.generation {
            records.append(.suspect(first: 1, last: last))
        }
        // After a crash it is not known either what was written since the bitmaps were stored.
        if isForeign || opened.superblock.isInUse {
            for var bitmap in opened.contents.bitmaps where !bitmap.isInconsistent {
                bitmap.isInconsistent = true
                records.append(.bitmap(bitmap))
            }
        }
        if isReadOnly {
            let records = records
            store.contents.withLock { contents in
                for record in records { try? contents.apply(record) }
            }
        } else {
            // In this order: while the superblock says how the file was left, another open finds the change as well.
            if !records.isEmpty { try store.commit(records) }
            try store.begin(stamp: found)
        }
    }

    func noteReaders() {
        hasReaders.store(store.contents.withLock { !$0.readers.isEmpty }, ordering: .releasing)
    }

    public var byteCount: UInt64 { raw.byteCount }
    public var displayFilename: String { raw.driver.displayFilename }
    public var clusterByteCount: UInt32? { UInt32(store.clusterByteCount) }

    public func information() throws(ColdframeError) -> BlockInformation {
        let (preservedCount, suspects) = store.contents.withLock { contents in
            (contents.index.count, contents.snapshots.filter { contents.isSuspect($0) }.map(\.info.id))
        }
        var data: JSONObject = [:]
        data["sidecar"] = .string(store.file.path)
        data["uuid"] = .string(store.uuid.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined())
        data["sidecar-size"] = .integer(Int64(store.usedClusterCount << store.clusterBits))
        data["preserved-clusters"] = .integer(Int64(preservedCount))
        data["suspect-snapshots"] = .array(suspects.map { .string($0) })
        return BlockInformation(
            allocatedByteCount: try raw.driver.information().allocatedByteCount,
            formatSpecific: ("raw-sidecar", data))
    }

    // MARK: Data

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try checkNotStuck()
        try raw.direct.read(into: buffer, at: offset)
    }

    public func write(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags
    ) throws(ColdframeError) {
        try beforeChange(offset..<offset + UInt64(buffer.count))
        defer { durability.noteChange() }
        try raw.direct.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let flags = options.passesDiscards ? flags : flags.subtracting(.mayUnmap)
        try inSteps(offset..<offset + byteCount) { (range) throws(ColdframeError) in
            try raw.direct.writeZeroes(
                at: range.lowerBound, byteCount: range.upperBound - range.lowerBound, flags: flags)
        }
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        guard options.passesDiscards else { return }
        try inSteps(offset..<offset + byteCount) { (range) throws(ColdframeError) in
            try raw.direct.discard(at: range.lowerBound, byteCount: range.upperBound - range.lowerBound)
        }
    }

    public func flush() throws(ColdframeError) {
        if isReadOnly { return }
        try checkNotStuck()
        // What the raw file's content relies on in the sidecar was durable before it was written.
        try durability.flush(raw)
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try checkNotStuck()
        return try raw.direct.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    public func close() throws(ColdframeError) {
        if isReadOnly || isStuck.load(ordering: .acquiring) { return }
        try raw.direct.flush()
        try store.end(stamp: try RawStamp(raw))
    }

    /// The range of the raw file may change when this has returned.
    private func beforeChange(_ range: Range<UInt64>) throws(ColdframeError) {
        try checkNotStuck()
        if store.isUncertain.load(ordering: .acquiring) { try store.settle() }
        if hasReaders.load(ordering: .acquiring) { try keeper.keep(range) }
    }

    /// Zeroing and discarding: long ranges, often of what is zero already. There nothing changes, and so nothing is kept.
    private func inSteps(
        _ range: Range<UInt64>, _ change: (Range<UInt64>) throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        defer { durability.noteChange() }
        guard hasReaders.load(ordering: .acquiring) else {
            try beforeChange(range)
            return try change(range)
        }
        var next = range.lowerBound
        while next < range.upperBound {
            let extent = try raw.direct.extents(at: next, byteCount: range.upperBound - next, limit: 1)[0]
            var end = extent.end
            if case .zero = extent.kind {
                try beforeChange(next..<next)
            } else {
                end = min(end, next + CopyBeforeWrite.stepByteCount)
                try beforeChange(next..<end)
            }
            try change(next..<end)
            next = end
        }
    }

    /// Whoever comes first after such a failure tries to finish the revert; the others wait. Nobody is past this check
    /// meanwhile, since the node was drained when it failed.
    func checkNotStuck() throws(ColdframeError) {
        guard isStuck.load(ordering: .acquiring) else { return }
        try finishing.withLock { () throws(ColdframeError) in
            guard isStuck.load(ordering: .acquiring) else { return }
            do throws(ColdframeError) {
                try finishRevert()
            } catch {
                throw error.prefixed(
                    "A revert of '\(displayFilename)' was interrupted and cannot be finished, so the disk is of no one "
                        + "moment")
            }
            isStuck.store(false, ordering: .releasing)
        }
    }

    func checkSuspect(_ snapshot: Contents.Snapshot) throws(ColdframeError) {
        guard !options.allowsSuspect, store.contents.withLock({ $0.isSuspect(snapshot) }) else { return }
        throw ColdframeError(
            .corrupt,
            "Snapshot '\(snapshot.info.name)' of '\(displayFilename)' may be wrong: something else wrote to the raw "
                + "image since it was made. Open the image with allow-suspect=on to use it all the same")
    }
}

extension Superblock {
    /// Whether somebody else wrote to the raw file since this was recorded. After a crash only what an own write cannot
    /// explain tells: a file that is older than it was.
    func isForeign(_ found: RawStamp) -> Bool {
        if !isInUse { return !stamp.matches(found) }
        guard let then = stamp.time, let now = found.time else { return false }
        return (now.seconds, now.nanoseconds) < (then.seconds, then.nanoseconds)
    }
}

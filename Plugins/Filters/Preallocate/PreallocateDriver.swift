import ColdframeKit
import LinuxSystem
import Synchronization

/// An open `preallocate` filter. Any number of threads.
///
/// While one user owns the size, what that user has written or asked for is the data; the file may be longer by zeros that are
/// allocated already. To everybody above the file ends with the data. Once nobody owns the size, the file does so too.
final class PreallocateDriver: BlockDriver, Resizable, Filtering, OwnershipFollowing {
    let driverName = "preallocate"
    let threadModel = ThreadModel.parallel
    let isReadOnly: Bool
    let shown: BlockNode
    private let ahead: Ahead
    /// Where the data ends; `unowned` while that is the file's end. A writer looks here first, without the lock.
    private let dataEnd = Atomic<UInt64>(unowned)
    private static let unowned = UInt64.max
    /// Held while the file is made longer or shorter, so that no write comes behind its end before the zeros do.
    private let growth = Locked(Growth())

    private struct Growth {
        /// Where the file ends, as far as it was made longer here.
        var fileEnd: UInt64 = 0
        /// The file could not be made longer, and ends nobody knows where: nothing is allocated ahead any more. What is behind its
        /// end then could be somebody's write.
        var hasFailed = false
    }

    init(_ file: BlockNode, ahead: Ahead = Ahead(), isReadOnly: Bool = false) {
        shown = file
        self.ahead = ahead
        self.isReadOnly = isReadOnly
    }

    var byteCount: UInt64 {
        let end = dataEnd.load(ordering: .acquiring)
        return end == Self.unowned ? shown.byteCount : end
    }

    // MARK: Who owns the size

    func setOwned(_ isOwned: Bool) throws(ColdframeError) {
        try growth.withLock { growth throws(ColdframeError) in
            guard isOwned != (self.dataEnd.load(ordering: .acquiring) != Self.unowned) else { return }
            guard isOwned, !self.isReadOnly else { return try self.giveUp(&growth) }
            growth = Growth(fileEnd: self.shown.byteCount)
            self.dataEnd.store(growth.fileEnd, ordering: .releasing)
        }
    }

    /// What was allocated ahead goes; a file that cannot be cut stays as long as it is.
    private func giveUp(_ growth: inout Growth) throws(ColdframeError) {
        let end = dataEnd.exchange(Self.unowned, ordering: .acquiringAndReleasing)
        guard end != Self.unowned, end < growth.fileEnd || growth.hasFailed else { return }
        do throws(ColdframeError) { try resizeFile(end) } catch {
            throw error.prefixed("Failed to drop preallocation of '\(displayFilename)'")
        }
    }

    func close() throws(ColdframeError) { try setOwned(false) }

    // MARK: Growing

    /// Called before a range is written. True if it is to be zeros and is so already.
    private func reach(
        _ offset: UInt64, _ byteCount: UInt64, forZeroes isZero: Bool = false
    ) throws(ColdframeError) -> Bool {
        let end = offset + byteCount
        // Nobody owns the size, or the range lies in what is there.
        guard end > dataEnd.load(ordering: .acquiring) else { return false }
        return try growth.withLock { growth throws(ColdframeError) in
            let before = self.dataEnd.load(ordering: .acquiring)
            guard before != Self.unowned, end > before else { return false }
            let isAllocated = self.allocate(upTo: end, &growth)
            self.dataEnd.store(end, ordering: .releasing)
            // Nothing was ever written behind the data.
            return isAllocated && isZero && offset >= before
        }
    }

    /// Makes the file reach behind `end`. False if it did not work, now or before: whoever wants to write there does it himself.
    private func allocate(upTo end: UInt64, _ growth: inout Growth) -> Bool {
        if growth.hasFailed { return false }
        guard end > growth.fileEnd else { return true }
        guard let fileEnd = ahead.end(forDataEnd: end) else { return false }
        do throws(ColdframeError) {
            try shown.direct.writeZeroes(
                at: growth.fileEnd, byteCount: fileEnd - growth.fileEnd, flags: .noFallback)
        } catch {
            growth.hasFailed = true
            return false
        }
        growth.fileEnd = fileEnd
        return true
    }

    func grow(toByteCount byteCount: UInt64) throws(ColdframeError) {
        try growth.withLock { growth throws(ColdframeError) in
            let end = self.dataEnd.load(ordering: .acquiring)
            guard end != Self.unowned else { return try self.resizeFile(byteCount, growing: true) }
            guard byteCount > end else { return }
            if !self.allocate(upTo: byteCount, &growth) {
                try self.resizeFile(byteCount, growing: true)
                growth.fileEnd = max(growth.fileEnd, byteCount)
            }
            self.dataEnd.store(byteCount, ordering: .releasing)
        }
    }

    /// Just so long, with nothing allocated that nobody asked for: somebody set the size of the disk.
    func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        try growth.withLock { growth throws(ColdframeError) in
            let end = self.dataEnd.load(ordering: .acquiring)
            if end != Self.unowned, end < min(growth.fileEnd, byteCount) {
                // Allocated zeros would stay.
                try self.resizeFile(end)
                growth.fileEnd = end
            }
            try self.resizeFile(byteCount)
            guard end != Self.unowned else { return }
            growth.fileEnd = byteCount
            self.dataEnd.store(byteCount, ordering: .releasing)
        }
    }

    private func resizeFile(_ byteCount: UInt64, growing isGrowth: Bool = false) throws(ColdframeError) {
        try isGrowth ? growBelow(toByteCount: byteCount) : resizableBelow().resize(toByteCount: byteCount)
    }

    // MARK: Requests

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        _ = try reach(offset, UInt64(buffer.count))
        try shown.direct.write(buffer, at: offset, flags: flags)
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        // Zeros that may be a hole, or are to be on stable storage, are made by the file.
        let isPlain = flags.isDisjoint(with: [.mayUnmap, .forceUnitAccess])
        if try reach(offset, byteCount, forZeroes: isPlain) { return }
        try shown.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }
}

import BlockCopying
import ColdframeKit
import LinuxSystem
import Synchronization

/// The data side of a mirror: a bitmap of what differs, and the copying of it. Any thread.
///
/// A bit is cleared before its part is read: a write that comes meanwhile sets it again, and the part is copied once more.
/// In write-blocking mode the filter writes to both sides; whoever changes a part of the target holds it reserved.
final class MirrorCopy: Sendable {
    /// What made the copying stop.
    enum Outcome: Sendable {
        /// Source and target are equal, and the target is flushed.
        case equal
        /// A pause or a cancel.
        case interrupted
        case failed(CopyFailure)
    }
    /// Small enough for what was read to be in the processor's cache when it is written.
    private static let chunkByteCount: UInt64 = 256 << 10
    /// Looked at between two interruptions when the job begins.
    private static let markedByteCount: UInt64 = 64 << 20

    let bitmap: DirtyBitmap
    /// The job's own views: their gates are what a drain closes.
    let source: BlockNode
    let target: BlockNode
    let reservations = RangeReservations()
    private let parts: PartCopy
    private let chunkByteCount: UInt64
    private let unmaps: Bool
    /// Holes are part of the progress.
    private let countsHoles: Bool
    /// Set where only what some images hold is copied.
    private let layers: LayerAllocation?
    private let copied = Atomic<UInt64>(0)
    private let endRequested = Atomic<Bool>(false)
    private let writeFailure = Locked<ColdframeError?>(nil)

    init(
        source: BlockNode, target: BlockNode, bitmap: DirtyBitmap, unmaps: Bool, countsHoles: Bool,
        only layers: LayerAllocation? = nil
    ) {
        self.layers = layers
        self.source = source
        self.target = target
        self.bitmap = bitmap
        self.unmaps = unmaps
        self.countsHoles = countsHoles
        chunkByteCount = max(Self.chunkByteCount, UInt64(bitmap.granularity))
        parts = PartCopy(from: source, to: target, limit: chunkByteCount, zeroFlags: unmaps ? .mayUnmap : [])
    }

    /// The job is to end as soon as both sides are equal.
    func requestEnd() { endRequested.store(true, ordering: .releasing) }
    var isEndRequested: Bool { endRequested.load(ordering: .acquiring) }
    var isDirty: Bool { bitmap.withBits { $0.setCount > 0 } }

    var progress: (current: UInt64, total: UInt64) {
        let current = copied.load(ordering: .acquiring)
        return (current, current + bitmap.dirtyByteCount)
    }

    // MARK: The job's thread

    /// Marks what has to be copied at first, from `start` on: all that is no hole. Holes are made in the target at once.
    /// Returns where it was interrupted, or the disk's end.
    func markAll(_ control: any JobControl, from start: UInt64) throws(ColdframeError) -> UInt64 {
        var offset = start
        let end = source.byteCount
        while offset < end, !control.isInterrupted {
            let range = offset..<min(end, offset + Self.markedByteCount)
            source.gate.enter()
            target.gate.enter()
            // Reserved before it is looked at: a writer to both sides must not come between look and hole.
            reservations.reserve(range)
            defer {
                reservations.release(range)
                target.gate.leave()
                source.gate.leave()
            }
            if let layers { try mark(range, in: layers) } else { try mark(range) }
            offset = range.upperBound
        }
        return offset
    }

    private func mark(_ range: Range<UInt64>) throws(ColdframeError) {
        var offset = range.lowerBound
        while offset < range.upperBound {
            let extents = try source.direct.extents(at: offset, byteCount: range.upperBound - offset, limit: 256)
            guard let last = extents.last else {
                return bitmap.updateBits { $0.set(at: offset, byteCount: range.upperBound - offset) }
            }
            for extent in extents {
                if case .zero(allocated: false) = extent.kind {
                    try target.direct.writeZeroes(
                        at: extent.offset, byteCount: extent.byteCount, flags: unmaps ? .mayUnmap : [])
                    if countsHoles { copied.add(extent.byteCount, ordering: .releasing) }
                } else {
                    bitmap.updateBits { $0.set(at: extent.offset, byteCount: extent.byteCount) }
                }
            }
            offset = last.end
        }
    }

    private func mark(_ range: Range<UInt64>, in layers: LayerAllocation) throws(ColdframeError) {
        var offset = range.lowerBound
        while offset < range.upperBound {
            let (isHeld, byteCount) = try layers.holds(at: offset, byteCount: range.upperBound - offset)
            if isHeld { bitmap.updateBits { $0.set(at: offset, byteCount: byteCount) } }
            offset += byteCount
        }
    }

    /// Copies until both sides are equal and, if `waits`, the end is asked for; or until something stops it.
    func run(_ control: any JobControl, waits: Bool) -> Outcome {
        var position: UInt64 = 0
        while !control.isInterrupted {
            // What has failed is still to be done.
            defer { showProgress(control) }
            if let error = writeFailure.withLock({ $0.take() }) {
                return .failed(CopyFailure(error: error, isRead: false))
            }
            let next = bitmap.withBits { $0.nextDirty(from: position, limit: chunkByteCount) }
            guard let part = next else {
                if position > 0 {
                    position = 0
                    continue
                }
                showProgress(control)
                if !waits || isEndRequested { return flushed() }
                control.wait(milliseconds: 100) { self.isEndRequested }
                continue
            }
            if let failure = copy(part) { return failure }
            position = part.upperBound
            showProgress(control)
            control.throttle(byteCount: part.upperBound - part.lowerBound)
        }
        return .interrupted
    }

    private func showProgress(_ control: any JobControl) {
        let progress = progress
        control.setProgress(current: progress.current, total: progress.total)
    }

    private func flushed() -> Outcome {
        do {
            try target.flush()
            return .equal
        } catch { return .failed(CopyFailure(error: error, isRead: false)) }
    }

    /// nil if it went well.
    private func copy(_ part: Range<UInt64>) -> Outcome? {
        // Gates first, then the part: a drain must not wait for a writer who waits for the part.
        source.gate.enter()
        target.gate.enter()
        reservations.reserve(part)
        defer {
            reservations.release(part)
            target.gate.leave()
            source.gate.leave()
        }
        let byteCount = part.upperBound - part.lowerBound
        bitmap.updateBits { $0.clear(at: part.lowerBound, byteCount: byteCount) }
        do { try parts.copy(part) } catch {
            bitmap.updateBits { $0.set(at: part.lowerBound, byteCount: byteCount) }
            return .failed(error)
        }
        copied.add(byteCount, ordering: .releasing)
        return nil
    }

    // MARK: Writers in write-blocking mode

    /// Runs a write on both sides. The granules that it covers or touches are equal afterwards if they were before.
    func writeBoth(
        at offset: UInt64, byteCount: UInt64, source writeSource: () throws(ColdframeError) -> Void,
        target writeTarget: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        guard byteCount > 0 else { return try writeSource() }
        let granule = UInt64(bitmap.granularity)
        let range = offset / granule * granule..<(offset + byteCount + granule - 1) / granule * granule
        reservations.reserve(range)
        defer { reservations.release(range) }
        let (headIsDirty, tailIsDirty) = bitmap.withBits {
            ($0.isSet(at: offset), $0.isSet(at: offset + byteCount - 1))
        }
        try writeSource()
        do { try writeTarget() } catch {
            bitmap.updateBits { $0.set(at: offset, byteCount: byteCount) }
            writeFailure.withLock { $0 = error }
            return
        }
        copied.add(byteCount, ordering: .releasing)
        // Granules that were dirty and are covered in part stay dirty.
        let start = headIsDirty && offset % granule != 0 ? range.lowerBound + granule : range.lowerBound
        let end =
            tailIsDirty && (offset + byteCount) % granule != 0 ? range.upperBound - granule : range.upperBound
        if start < end { bitmap.updateBits { $0.clear(at: start, byteCount: end - start) } }
    }
}

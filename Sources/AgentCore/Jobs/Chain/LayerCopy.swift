import BlockCopying
import ColdframeKit
import Synchronization

/// The data side of `commit` and `stream`: copies what images of a chain hold to another image of it, once, from the disk's
/// beginning to its end. Any thread.
final class LayerCopy: Sendable {
    enum Outcome: Sendable {
        case done
        /// A pause or a cancel.
        case interrupted
        case failed(CopyFailure)
    }
    /// Small enough for what was read to be in the processor's cache when it is written.
    private static let chunkByteCount: UInt64 = 256 << 10

    /// The job's own views: their gates are what a drain closes.
    let source: BlockNode
    let target: BlockNode
    private let parts: PartCopy
    /// What the target has already; nil to copy over what it has.
    private let present: LayerAllocation?
    /// The images whose content is copied.
    private let copied: LayerAllocation
    /// Keeps writers out of the part that is being copied; nil where nobody else writes the target.
    private let reservations: RangeReservations?
    private let position = Atomic<UInt64>(0)

    init(
        from source: BlockNode, to target: BlockNode, copying copied: LayerAllocation,
        unlessIn present: LayerAllocation?,
        reservations: RangeReservations?
    ) {
        self.source = source
        self.target = target
        parts = PartCopy(from: source, to: target, limit: Self.chunkByteCount)
        self.copied = copied
        self.present = present
        self.reservations = reservations
    }

    /// Bytes that are behind it.
    var offset: UInt64 { position.load(ordering: .acquiring) }

    /// Leaves a part out that could not be copied.
    func skip() { position.store(min(source.byteCount, offset + Self.chunkByteCount), ordering: .releasing) }

    /// The job's thread: goes on where it was.
    func run(_ control: any JobControl) -> Outcome {
        let end = source.byteCount
        while !control.isInterrupted {
            let start = offset
            guard start < end else { return flushed() }
            let step: (byteCount: UInt64, isCopied: Bool)
            do {
                // Gates first, then the part: a drain must not wait for a writer who waits for the part.
                source.gate.enter()
                target.gate.enter()
                let chunk = start..<min(end, start + Self.chunkByteCount)
                reservations?.reserve(chunk)
                defer {
                    reservations?.release(chunk)
                    target.gate.leave()
                    source.gate.leave()
                }
                step = try advance(chunk)
            } catch { return .failed(error) }
            position.store(start + step.byteCount, ordering: .releasing)
            control.setProgress(current: start + step.byteCount, total: end)
            if step.isCopied { control.throttle(byteCount: step.byteCount) }
        }
        return .interrupted
    }

    /// What the target got is there before anything relies on it.
    private func flushed() -> Outcome {
        do {
            try target.flush()
            return .done
        } catch { return .failed(CopyFailure(error: error, isRead: false)) }
    }

    /// Handles the first bytes of the part that are alike.
    private func advance(_ chunk: Range<UInt64>) throws(CopyFailure) -> (byteCount: UInt64, isCopied: Bool) {
        let (byteCount, isCopied): (UInt64, Bool)
        do { (byteCount, isCopied) = try look(chunk) } catch { throw CopyFailure(error: error, isRead: true) }
        if isCopied { try parts.copy(chunk.lowerBound..<chunk.lowerBound + byteCount) }
        return (byteCount, isCopied)
    }

    /// How many bytes at the beginning of the part are alike, and whether they are to be copied.
    private func look(_ chunk: Range<UInt64>) throws(ColdframeError) -> (byteCount: UInt64, isCopied: Bool) {
        var count = chunk.upperBound - chunk.lowerBound
        if let present {
            let (isThere, run) = try present.holds(at: chunk.lowerBound, byteCount: count)
            if isThere { return (run, false) }
            count = run
        }
        let (isHeld, run) = try copied.holds(at: chunk.lowerBound, byteCount: count)
        return (run, isHeld)
    }
}

import ColdframeKit
import LinuxSystem
import Synchronization

/// A copy of a disk of one moment: which parts are still to be copied, and the copying.
///
/// Any number of threads may copy. A part is in the set `dirty` until its copy is in the target; whoever copies it has
/// reserved it, and others wait for him. Requests go to `source` and `target` behind their gates: callers have passed one.
public final class BlockCopy: Sendable {
    /// Bytes of one step, but a cluster at least.
    private static let stepByteCount = 256 << 10
    /// After a writer had to copy, the job's steps are as small as they can be for so many.
    private static let smallPartsPerWrite = 64
    public static let smallestClusterByteCount: UInt32 = 65536

    private struct State {
        /// Not copied yet, or being copied.
        var dirty: DirtyBits
        /// Copied.
        var done: DirtyBits
        var reserved: [Range<UInt64>] = []
        /// Being read from the source by somebody who wants what was there: not to be overwritten.
        var frozen: [Range<UInt64>] = []
        /// Why the copy is no longer what it was.
        var breakage: ColdframeError?
    }
    private let state: Locked<State>
    private let changed = ConditionVariable()
    private let parts: PartCopy
    private let chunkByteCount: UInt64
    private let copied = Atomic<UInt64>(0)
    /// Parts that are still taken small, since somebody writes to the source.
    private let smallPartCount = Atomic<Int>(0)

    public var source: BlockNode { parts.source }
    public var target: BlockNode { parts.target }
    /// What is copied as one: the target's cluster, 64 KiB at least.
    public let clusterByteCount: UInt32
    private let diskByteCount: UInt64
    /// The target's unit of compression; nil to store data as it is.
    private let compressionUnit: UInt64?

    /// - Parameter compresses: the target stores data compressed, which it can.
    public init(
        source: BlockNode, target: BlockNode, clusterByteCount: UInt32, dirty: DirtyBits? = nil,
        compresses: Bool = false
    ) {
        compressionUnit = compresses ? (target.driver as? any CompressedWriting)?.compressionUnitByteCount : nil
        chunkByteCount = max(UInt64(Self.stepByteCount), UInt64(clusterByteCount))
        parts = PartCopy(from: source, to: target, limit: min(chunkByteCount, source.byteCount))
        self.clusterByteCount = clusterByteCount
        diskByteCount = source.byteCount
        var all = DirtyBits(diskByteCount: diskByteCount, granularity: clusterByteCount)
        let none = all
        if let dirty { all.formUnion(dirty) } else { all.set(at: 0, byteCount: .max) }
        state = Locked(State(dirty: all, done: none))
    }

    // MARK: What is to be copied

    /// Bytes copied so far, and with those that are still to be.
    public var progress: (current: UInt64, total: UInt64) {
        let current = copied.load(ordering: .acquiring)
        let left = state.withLock { $0.dirty.setCount } * UInt64(clusterByteCount)
        return (current, current + left)
    }

    /// What is not copied yet.
    public var remaining: DirtyBits { state.withLock { $0.dirty } }

    /// Only this is copied from now on.
    public func restrict(to bits: DirtyBits) {
        state.withLock { state in
            var dirty = DirtyBits(diskByteCount: diskByteCount, granularity: clusterByteCount)
            dirty.formUnion(bits)
            state.dirty = dirty
        }
    }

    /// The whole clusters of the range need not be copied.
    public func skip(_ range: Range<UInt64>) {
        let cluster = UInt64(clusterByteCount)
        let start = (range.lowerBound + cluster - 1) / cluster * cluster
        let end = range.upperBound >= diskByteCount ? range.upperBound : range.upperBound / cluster * cluster
        guard start < end else { return }
        state.withLock { state in
            state.dirty.clear(at: start, byteCount: end - start)
            state.done.clear(at: start, byteCount: end - start)
        }
    }

    /// The first part to be copied at `offset` or behind it, in whole clusters: a single one while the source is written, since a
    /// writer who wants to copy waits for the target's file as long as the part is written there.
    public func nextDirty(from offset: UInt64) -> Range<UInt64>? {
        let isSmall = smallPartCount.load(ordering: .relaxed) > 0
        if isSmall { smallPartCount.subtract(1, ordering: .relaxed) }
        return state.withLock {
            $0.dirty.nextDirty(from: offset, limit: isSmall ? UInt64(clusterByteCount) : chunkByteCount)
        }
    }

    // MARK: Copying

    /// Copies what is still to be copied of the clusters that the range touches. When it returns, the target has them
    /// all. Returns the bytes that it copied itself.
    /// - Parameter findsZeroes: holes of the source are not read, but made holes of the target.
    @discardableResult
    public func copy(_ range: Range<UInt64>, findsZeroes: Bool) throws(CopyFailure) -> UInt64 {
        let cluster = UInt64(clusterByteCount)
        let end = min(diskByteCount, (range.upperBound + cluster - 1) / cluster * cluster)
        var byteCount: UInt64 = 0
        while let part = reserve(from: range.lowerBound / cluster * cluster, to: end) {
            do {
                try transfer(part, findsZeroes: findsZeroes)
                byteCount += part.upperBound - part.lowerBound
                release(part, isCopied: true)
            } catch {
                release(part, isCopied: false)
                throw error
            }
        }
        return byteCount
    }

    /// Takes the next part to be copied, waiting while somebody else is at it. nil when all is copied.
    private func reserve(from start: UInt64, to end: UInt64) -> Range<UInt64>? {
        while true {
            let (part, isFree) = state.withLock { state -> (Range<UInt64>?, Bool) in
                guard
                    let part = state.dirty.nextDirty(from: start, to: end, limit: chunkByteCount)
                else { return (nil, true) }
                guard !state.reserved.contains(where: { $0.overlaps(part) }) else { return (part, false) }
                state.reserved.append(part)
                return (part, true)
            }
            guard let part else { return nil }
            if isFree { return part }
            changed.wait { state.withLock { !$0.reserved.contains { $0.overlaps(part) } } }
        }
    }

    private func release(_ part: Range<UInt64>, isCopied: Bool) {
        let byteCount = part.upperBound - part.lowerBound
        state.withLock { state in
            state.reserved.removeAll { $0 == part }
            if isCopied {
                state.dirty.clear(at: part.lowerBound, byteCount: byteCount)
                state.done.set(at: part.lowerBound, byteCount: byteCount)
            }
        }
        if isCopied { copied.add(byteCount, ordering: .releasing) }
        changed.broadcast()
    }

    private func transfer(_ part: Range<UInt64>, findsZeroes: Bool) throws(CopyFailure) {
        if let compressionUnit {
            if findsZeroes { try transfer(part, inUnitsOf: compressionUnit) } else { try transferCompressed(part) }
        } else {
            if findsZeroes { try parts.copy(part) } else { try parts.copyData(part) }
        }
    }

    /// Compressed data begins and ends with a unit: holes count where they fill one.
    private func transfer(_ part: Range<UInt64>, inUnitsOf unit: UInt64) throws(CopyFailure) {
        var offset = part.lowerBound
        while offset < part.upperBound {
            let isZero = try isHole(offset, unit)
            var stop = min(part.upperBound, offset + unit)
            while stop < part.upperBound, try isHole(stop, unit) == isZero { stop = min(part.upperBound, stop + unit) }
            if isZero {
                let byteCount = stop - offset
                try parts.writing { () throws(ColdframeError) in
                    try target.direct.writeZeroes(at: offset, byteCount: byteCount)
                }
            } else {
                try transferCompressed(offset..<stop)
            }
            offset = stop
        }
    }

    private func isHole(_ offset: UInt64, _ unit: UInt64) throws(CopyFailure) -> Bool {
        let end = min(diskByteCount, offset + unit)
        let extents = try parts.reading { () throws(ColdframeError) in
            try source.direct.extents(at: offset, byteCount: end - offset, limit: 1)
        }
        guard let first = extents.first else { return false }
        return first.readsAsZeros && first.end >= end
    }

    private func transferCompressed(_ part: Range<UInt64>) throws(CopyFailure) {
        try parts.buffers.with { (memory) throws(CopyFailure) in
            let buffer = UnsafeMutableRawBufferPointer(start: memory, count: Int(part.upperBound - part.lowerBound))
            try parts.reading { () throws(ColdframeError) in
                try source.direct.read(into: buffer, at: part.lowerBound)
            }
            try parts.writing { () throws(ColdframeError) in
                try target.direct.writeCompressed(UnsafeRawBufferPointer(buffer), at: part.lowerBound)
            }
        }
    }

    // MARK: For writers of the source

    /// Called before the range of the source is overwritten: returns when what was there is in the target and nobody
    /// reads it in the source any more.
    public func prepareForWrite(_ range: Range<UInt64>) throws(CopyFailure) {
        guard breakage == nil else { return }
        if state.withLock({ $0.dirty.nextDirty(from: range.lowerBound, to: range.upperBound, limit: 1) }) != nil {
            smallPartCount.store(Self.smallPartsPerWrite, ordering: .relaxed)
            try copy(range, findsZeroes: false)
        }
        let isFrozen = { self.state.withLock { $0.frozen.contains { $0.overlaps(range) } } }
        if isFrozen() { changed.wait { !isFrozen() } }
    }

    /// The copy is no longer what the disk was: reads of it fail from now on.
    public func breakOff(_ error: ColdframeError) {
        state.withLock { if $0.breakage == nil { $0.breakage = error } }
    }

    public var breakage: ColdframeError? { state.withLock { $0.breakage } }

    // MARK: For readers of the moment

    /// Whether all of the range is kept: copied already, or to be copied before it is overwritten.
    public func keeps(_ range: Range<UInt64>) -> Bool {
        state.withLock { state in
            var offset = range.lowerBound
            while offset < range.upperBound {
                guard state.done.isSet(at: offset) || state.dirty.isSet(at: offset) else { return false }
                let cluster = UInt64(clusterByteCount)
                offset = (offset / cluster + 1) * cluster
            }
            return true
        }
    }

    /// Runs `body` for each piece of the range with the node that holds what the disk was: the target where it is copied
    /// already, else the source, which keeps it as long as `body` runs.
    public func read<E: Error>(
        _ range: Range<UInt64>, _ body: (_ node: BlockNode, _ piece: Range<UInt64>) throws(E) -> Void
    ) throws(E) {
        var offset = range.lowerBound
        while offset < range.upperBound {
            let (piece, isCopied) = state.withLock { state -> (Range<UInt64>, Bool) in
                let isCopied = state.done.isSet(at: offset)
                let stop =
                    isCopied
                    ? state.done.nextClean(from: offset) : state.done.nextDirty(from: offset)?.lowerBound
                let piece = offset..<min(range.upperBound, stop ?? range.upperBound)
                if !isCopied { state.frozen.append(piece) }
                return (piece, isCopied)
            }
            defer { if !isCopied { thaw(piece) } }
            try body(isCopied ? target : source, piece)
            offset = piece.upperBound
        }
    }

    private func thaw(_ piece: Range<UInt64>) {
        state.withLock { state in
            if let index = state.frozen.firstIndex(of: piece) { state.frozen.remove(at: index) }
        }
        changed.broadcast()
    }
}

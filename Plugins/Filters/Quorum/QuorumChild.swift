import ColdframeKit
import LinuxSystem
import Synchronization

/// One child of a quorum, and what it has missed. Any thread.
final class QuorumChild: Sendable {
    /// The name of the edge.
    let name: String
    let node: BlockNode
    /// Where a write failed on this child that the quorum as a whole has taken; nil if that has never happened.
    private let missed = Locked<DirtyBits?>(nil)
    private let hasMissedAny = Atomic<Bool>(false)

    init(name: String, node: BlockNode) {
        self.name = name
        self.node = node
    }

    /// Does a request to the child; how it failed, or nil.
    func attempt(_ range: Range<UInt64>, _ body: (DirectIO) throws(ColdframeError) -> Void) -> ColdframeError? {
        let byteCount = node.byteCount
        guard range.upperBound <= byteCount else {
            return ColdframeError(.io, "Node '\(node.name)' has only \(byteCount) bytes by now")
        }
        do throws(ColdframeError) {
            try body(node.direct)
            return nil
        } catch {
            return error
        }
    }

    /// The same with a request to all of them, in which this one has that number.
    func attempt(_ request: QuorumRequest, _ number: Int) -> ColdframeError? {
        attempt(request.range) { (io) throws(ColdframeError) in try request.perform(on: io, child: number) }
    }

    // MARK: What it has missed

    /// Its content of the range is older than what the quorum's users were told.
    func hasMissed(_ range: Range<UInt64>) -> Bool {
        guard hasMissedAny.load(ordering: .acquiring) else { return false }
        return missed.withLock { $0?.nextDirty(from: range.lowerBound, to: range.upperBound) != nil }
    }

    func miss(_ range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        missed.withLock { missed in
            // It may be shorter than the others, if it could not grow with them.
            let byteCount = max(node.byteCount, range.upperBound)
            var bits = missed ?? DirtyBits(diskByteCount: byteCount, granularity: granularity)
            if bits.diskByteCount < byteCount { bits.resize(toDiskByteCount: byteCount) }
            bits.set(at: range.lowerBound, byteCount: UInt64(range.count))
            missed = bits
            hasMissedAny.store(true, ordering: .releasing)
        }
    }

    /// The range has been written. Only clusters that are written whole are up to date again.
    func catchUp(_ range: Range<UInt64>) {
        guard hasMissedAny.load(ordering: .acquiring) else { return }
        missed.withLock { missed in
            guard var bits = missed else { return }
            let cluster = UInt64(granularity)
            let start = (range.lowerBound + cluster - 1) / cluster * cluster
            let end = range.upperBound >= bits.diskByteCount ? range.upperBound : range.upperBound / cluster * cluster
            guard start < end else { return }
            bits.clear(at: start, byteCount: end - start)
            missed = bits.setCount > 0 ? bits : nil
            if bits.setCount == 0 { hasMissedAny.store(false, ordering: .releasing) }
        }
    }

    /// Another node holds everything in its place.
    func becomeWhole() {
        missed.withLock { missed in
            missed = nil
            hasMissedAny.store(false, ordering: .releasing)
        }
    }

    /// 64 KiB, and more where that would take over a MiB of memory.
    private var granularity: UInt32 {
        var granularity: UInt32 = 65536
        while node.byteCount / UInt64(granularity) > 8 << 20, granularity < 1 << 30 { granularity *= 2 }
        return granularity
    }
}

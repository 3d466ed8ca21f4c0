import ColdframeKit
import LinuxSystem

/// Where each block of the disk lies. Any thread; a lookup holds a short lock and does no I/O.
final class BlockMap: Sendable {
    private let entries: Locked<[UInt32]>
    /// A lookup goes through so many entries at most.
    private static let stepCount = 4096

    init(_ entries: [UInt32]) { self.entries = Locked(entries) }

    /// The entry of `block`, and how many blocks from it on follow one another: all without a place, or all in a row.
    func run(from block: Int, limit: Int) -> (entry: UInt32, blockCount: Int) {
        entries.withLock { entries in
            let first = entries[block]
            let end = min(entries.count, block + min(limit, Self.stepCount))
            var next = block + 1
            while next < end {
                let entry = entries[next]
                let isMore =
                    VdiImage.isAllocated(first)
                    ? UInt64(entry) == UInt64(first) + UInt64(next - block) && VdiImage.isAllocated(entry)
                    : !VdiImage.isAllocated(entry)
                guard isMore else { break }
                next += 1
            }
            return (first, next - block)
        }
    }

    func set(_ block: Int, to entry: UInt32) { entries.withLock { $0[block] = entry } }
}

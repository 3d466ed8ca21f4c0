import ColdframeKit

/// The sizes in which requests reach the node below; 0 for none.
struct BlkdebugLimits: Sendable {
    let align: UInt64
    let transfer: UInt64
    let zeroAlign: UInt64
    let zeroing: UInt64
    let discardAlign: UInt64
    let discard: UInt64

    private static let largestBlockByteCount: Int64 = 64 << 20

    /// Throws QEMU's text.
    init(_ options: BlockdevOptionsBlkdebug) throws {
        func checked(_ name: String, _ value: Int64, multipleOf unit: UInt64) throws -> UInt64 {
            guard value >= 0, value < Int64(Int32.max), UInt64(value) % max(unit, 1) == 0 else {
                throw ColdframeError(
                    .invalidArgument, "Cannot meet constraints with \(name) \(UInt64(bitPattern: value))")
            }
            return UInt64(value)
        }
        let align = options.align ?? 0
        // Such a block is held in memory.
        for (name, value) in [("align", align), ("opt-write-zero", Int64(options.optWriteZero ?? 0))]
        where value > Self.largestBlockByteCount {
            throw ColdframeError(.invalidArgument, "Cannot meet constraints with \(name) \(value)")
        }
        self.align = try checked("align", align, multipleOf: align > 0 ? Self.powerOfTwo(atLeast: align) : 1)
        transfer = try checked("max-transfer", Int64(options.maxTransfer ?? 0), multipleOf: self.align)
        zeroAlign = try checked("opt-write-zero", Int64(options.optWriteZero ?? 0), multipleOf: self.align)
        zeroing = try checked(
            "max-write-zero", Int64(options.maxWriteZero ?? 0), multipleOf: max(zeroAlign, self.align))
        discardAlign = try checked("opt-discard", Int64(options.optDiscard ?? 0), multipleOf: self.align)
        discard = try checked("max-discard", Int64(options.maxDiscard ?? 0), multipleOf: max(discardAlign, self.align))
    }

    /// What a number is a multiple of only if it is a power of two itself.
    private static func powerOfTwo(atLeast value: Int64) -> UInt64 {
        var power: UInt64 = 1
        while power < UInt64(value) { power <<= 1 }
        return power
    }
}

/// The pieces of a range between multiples of a unit, none larger than a limit. What is not whole at the ends is a piece of
/// its own.
struct RangePieces: Sequence, IteratorProtocol {
    private var rest: Range<UInt64>
    private let limit: UInt64
    /// Where the whole units begin and end.
    private let ends: [UInt64]

    /// 0 for no such bound.
    init(_ range: Range<UInt64>, at unit: UInt64, limit: UInt64) {
        let unit = Swift.max(unit, 1)
        let first = Swift.min((range.lowerBound + unit - 1) / unit * unit, range.upperBound)
        ends = [first, Swift.max(range.upperBound / unit * unit, first), range.upperBound]
        rest = range
        self.limit = limit
    }

    mutating func next() -> Range<UInt64>? {
        let start = rest.lowerBound
        guard let end = ends.first(where: { $0 > start }) else { return nil }
        let stop = limit > 0 ? Swift.min(end, start + limit) : end
        rest = stop..<rest.upperBound
        return start..<stop
    }
}

import ColdframeKit

/// The sizes in which requests reach the node below; 0 for none.
struct BlkdebugLimits: Sendable {
    let align: UInt64
    let transfer: UInt64
    let zeroAlign: UInt64
    let zeroing: UInt64
    let discardAlign: UInt64
    let discard: UInt64

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

extension Range<UInt64> {
    /// The pieces between multiples of `unit`, none larger than `limit`; 0 for no such bound. What is not whole at the ends is
    /// a piece of its own.
    func pieces(at unit: UInt64, limit: UInt64) -> [Range<UInt64>] {
        let unit = Swift.max(unit, 1)
        let first = Swift.min((lowerBound + unit - 1) / unit * unit, upperBound)
        let last = Swift.max(upperBound / unit * unit, first)
        var pieces: [Range<UInt64>] = []
        for whole in [lowerBound..<first, first..<last, last..<upperBound] {
            var start = whole.lowerBound
            while start < whole.upperBound {
                let end = limit > 0 ? Swift.min(whole.upperBound, start + limit) : whole.upperBound
                pieces.append(start..<end)
                start = end
            }
        }
        return pieces
    }
}

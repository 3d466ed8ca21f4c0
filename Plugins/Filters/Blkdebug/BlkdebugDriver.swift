import ColdframeKit
import LinuxSystem

/// Shows a node; requests fail by rules, and reach the node in the sizes that the options allow. Any thread, but one at a time
/// with `align`, where a write reads what it covers in part.
final class BlkdebugDriver: BlockDriver, Resizable, StepListening, Filtering {
    let driverName = "blkdebug"
    let threadModel: ThreadModel
    let shown: BlockNode
    private let rules: BlkdebugRules
    private let limits: BlkdebugLimits

    init(child: BlockNode, rules: BlkdebugRules, limits: BlkdebugLimits) {
        shown = child
        self.rules = rules
        self.limits = limits
        threadModel = limits.align > 1 ? .serialized : .parallel
    }

    func announced(_ step: BlockStep) {
        if let event = BlkdebugEvent(rawValue: step.rawValue) { rules.happened(event) }
    }

    // MARK: Reading

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let range = offset..<offset + UInt64(buffer.count)
        let whole = aligned(range)
        guard whole != range else { return try readPieces(buffer, range) }
        try withZeroes(byteCount: whole.byteCount) { (blocks) throws(ColdframeError) in
            try readPieces(blocks, whole)
            buffer.copyMemory(from: UnsafeRawBufferPointer(blocks.part(range, of: whole)))
        }
    }

    /// With the blocks that it touches.
    private func aligned(_ range: Range<UInt64>) -> Range<UInt64> {
        guard limits.align > 1, !range.isEmpty else { return range }
        let align = limits.align
        return range.lowerBound / align * align..<(range.upperBound + align - 1) / align * align
    }

    /// What lies behind the end of the node reads as zeros: a block may be larger than what is left of it.
    private func readPieces(_ buffer: UnsafeMutableRawBufferPointer, _ range: Range<UInt64>) throws(ColdframeError) {
        for piece in RangePieces(range, at: 1, limit: limits.transfer) {
            try rules.check(.read, piece)
            let start = Int(piece.lowerBound - range.lowerBound)
            let end = min(piece.upperBound, max(shown.byteCount, piece.lowerBound))
            let there = Int(end - piece.lowerBound)
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + there])
            if there > 0 { try shown.direct.read(into: part, at: piece.lowerBound) }
            for index in start + there..<start + Int(piece.byteCount) { buffer[index] = 0 }
        }
    }

    // MARK: Writing

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let range = offset..<offset + UInt64(buffer.count)
        let whole = aligned(range)
        guard whole != range else { return try writePieces(buffer, range, flags) }
        try withZeroes(byteCount: whole.byteCount) { (blocks) throws(ColdframeError) in
            if whole.lowerBound < range.lowerBound {
                rules.happened(.pwritevRmwHead)
                try readBlock(at: whole.lowerBound, of: blocks, whole)
                rules.happened(.pwritevRmwAfterHead)
            }
            if whole.upperBound > range.upperBound {
                rules.happened(.pwritevRmwTail)
                try readBlock(at: whole.upperBound - limits.align, of: blocks, whole)
                rules.happened(.pwritevRmwAfterTail)
            }
            blocks.part(range, of: whole).copyMemory(from: buffer)
            try writePieces(UnsafeRawBufferPointer(blocks), whole, flags)
        }
    }

    private func readBlock(
        at offset: UInt64, of blocks: UnsafeMutableRawBufferPointer, _ whole: Range<UInt64>
    ) throws(ColdframeError) {
        let block = offset..<offset + limits.align
        try readPieces(blocks.part(block, of: whole), block)
    }

    private func writePieces(
        _ buffer: UnsafeRawBufferPointer, _ range: Range<UInt64>, _ flags: WriteFlags
    ) throws(ColdframeError) {
        rules.happened(.pwritev)
        defer { rules.happened(.pwritevDone) }
        for piece in RangePieces(range, at: 1, limit: limits.transfer) {
            try rules.check(.write, piece)
            let start = Int(piece.lowerBound - range.lowerBound)
            let end = min(piece.upperBound, shown.byteCount)
            guard end > piece.lowerBound else { continue }
            let part = UnsafeRawBufferPointer(rebasing: buffer[start..<start + Int(end - piece.lowerBound)])
            try shown.direct.write(part, at: piece.lowerBound, flags: flags)
        }
    }

    /// Only whole pieces become zero as such; the rest is written.
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        rules.happened(.pwritevZero)
        let unit = max(limits.align, limits.zeroAlign, 1)
        for piece in RangePieces(offset..<offset + byteCount, at: unit, limit: limits.zeroing) {
            guard piece.byteCount < unit else {
                try rules.check(.writeZeroes, piece)
                try shown.direct.writeZeroes(
                    at: piece.lowerBound, byteCount: piece.byteCount, flags: flags)
                continue
            }
            if flags.contains(.noFallback) {
                throw ColdframeError(
                    .unsupported, SystemError.text(errno: Errno.notSupported), errno: Errno.notSupported)
            }
            try withZeroes(byteCount: piece.byteCount) { (zeros) throws(ColdframeError) in
                try write(UnsafeRawBufferPointer(zeros), at: piece.lowerBound, flags: flags.subtracting(.mayUnmap))
            }
        }
        rules.happened(.pwritevDone)
    }

    /// What is smaller than a block is left as it is.
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        let unit = max(limits.align, limits.discardAlign)
        for piece in RangePieces(offset..<offset + byteCount, at: unit, limit: limits.discard) {
            guard piece.byteCount >= limits.align else { continue }
            try rules.check(.discard, piece)
            try shown.direct.discard(at: piece.lowerBound, byteCount: piece.byteCount)
        }
    }

    func flush() throws(ColdframeError) {
        rules.happened(.flushToOs)
        rules.happened(.flushToDisk)
        try rules.check(.flush)
        try shown.direct.flush()
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try rules.check(.blockStatus, offset..<offset + byteCount)
        // What is read straight from the file could not fail.
        return try extentsWithoutPlaces(at: offset, byteCount: byteCount, limit: limit)
    }
}

/// Runs `body` with memory of its own, all zeros at first.
private func withZeroes(
    byteCount: UInt64, _ body: (UnsafeMutableRawBufferPointer) throws(ColdframeError) -> Void
) throws(ColdframeError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(byteCount), alignment: 4096)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 0)
    try body(buffer)
}

extension UnsafeMutableRawBufferPointer {
    /// The bytes of `range`, where the buffer holds `whole`.
    fileprivate func part(_ range: Range<UInt64>, of whole: Range<UInt64>) -> UnsafeMutableRawBufferPointer {
        let bounds = Int(range.lowerBound - whole.lowerBound)..<Int(range.upperBound - whole.lowerBound)
        return UnsafeMutableRawBufferPointer(rebasing: self[bounds])
    }
}

extension Range<UInt64> {
    fileprivate var byteCount: UInt64 { upperBound - lowerBound }
}

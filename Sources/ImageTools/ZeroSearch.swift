/// Looks for zeros, in blocks: what need not be written.
enum ZeroSearch {
    /// Zeros shorter than this are written as data: an entry of their own costs more than it saves.
    static let blockByteCount = 4096

    static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        // Eight words at a time, without a branch among them.
        while index + 64 <= bytes.count {
            var any: UInt64 = 0
            for word in 0..<8 { any |= bytes.loadUnaligned(fromByteOffset: index + word * 8, as: UInt64.self) }
            if any != 0 { return false }
            index += 64
        }
        while index < bytes.count {
            if bytes[index] != 0 { return false }
            index += 1
        }
        return true
    }

    /// Calls `body` for each run of blocks that are not all zeros. `offset` is the place of the first byte on its disk, by which
    /// blocks are aligned.
    static func forEachDataRun<Failure: Error>(
        _ bytes: UnsafeRawBufferPointer, at offset: UInt64, _ body: (Range<Int>) throws(Failure) -> Void
    ) throws(Failure) {
        var start: Int?
        var index = 0
        while index < bytes.count {
            let toBoundary = blockByteCount - Int((offset + UInt64(index)) % UInt64(blockByteCount))
            let end = min(bytes.count, index + toBoundary)
            if isZero(UnsafeRawBufferPointer(rebasing: bytes[index..<end])) {
                if let first = start { try body(first..<index) }
                start = nil
            } else if start == nil {
                start = index
            }
            index = end
        }
        if let start { try body(start..<bytes.count) }
    }
}

import ColdframeKit
import LinuxSystem

/// Compares the content of two disks.
public enum ImageComparison {
    public enum Outcome: Sendable, Equatable {
        case identical
        /// First byte of the block in which they differ.
        case contentDiffers(offset: UInt64)
        case sizeDiffers
    }

    private static let pieceByteCount: UInt64 = 2 << 20

    /// A longer disk is equal to a shorter one if the rest of it reads as zeros, unless `isStrict`. Blocks.
    public static func run(
        _ first: BlockNode, _ second: BlockNode, isStrict: Bool, progress: (_ done: UInt64) throws -> Void
    ) throws -> Outcome {
        if isStrict, first.byteCount != second.byteCount { return .sizeDiffers }
        let common = min(first.byteCount, second.byteCount)
        let difference = Locked<UInt64?>(nil)
        try ImageWork(byteCount: max(first.byteCount, second.byteCount), pieceByteCount: pieceByteCount).run(
            workerCount: 4, progress: progress
        ) { offset, byteCount, buffer in
            // What lies behind a difference that is known is of no interest.
            if let known = difference.withLock({ $0 }), known < offset { return }
            if let found = try compare(first, second, common: common, offset, byteCount, buffer) {
                difference.withLock { $0 = min($0 ?? .max, found) }
            }
        }
        return difference.withLock { $0 }.map { .contentDiffers(offset: $0) } ?? .identical
    }

    private static func compare(
        _ first: BlockNode, _ second: BlockNode, common: UInt64, _ offset: UInt64, _ byteCount: Int,
        _ buffer: UnsafeMutableRawBufferPointer
    ) throws -> UInt64? {
        if try isKnownZero(first, offset, byteCount), try isKnownZero(second, offset, byteCount) { return nil }
        let other = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
        defer { other.deallocate() }
        let mine = UnsafeMutableRawBufferPointer(rebasing: buffer[..<byteCount])
        try read(first, into: mine, offset)
        try read(second, into: other, offset)
        return mine.indices.first { mine[$0] != other[$0] }.map { offset + UInt64($0) / 512 * 512 }
    }

    /// Zeros behind the disk's end.
    private static func read(
        _ node: BlockNode, into buffer: UnsafeMutableRawBufferPointer, _ offset: UInt64
    ) throws(ColdframeError) {
        let size = node.byteCount
        let present = offset >= size ? 0 : Int(min(UInt64(buffer.count), size - offset))
        if present > 0 { try node.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<present]), at: offset) }
        UnsafeMutableRawBufferPointer(rebasing: buffer[present...]).initializeMemory(as: UInt8.self, repeating: 0)
    }

    private static func isKnownZero(
        _ node: BlockNode, _ offset: UInt64, _ byteCount: Int
    ) throws(ColdframeError) -> Bool {
        let size = node.byteCount
        guard offset < size else { return true }
        let end = min(size, offset + UInt64(byteCount))
        guard let extent = try node.extents(at: offset, byteCount: end - offset, limit: 1).first else { return false }
        if case .zero = extent.kind { return extent.end >= end }
        return false
    }
}

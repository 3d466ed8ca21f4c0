import ColdframeKit
import Synchronization

/// Copies a disk into a new image.
public enum ImageCopy {
    public struct Options: Sendable {
        /// Store data compressed; the target must be able to.
        public var compresses = false
        public var workerCount = 8
        public init() {}
    }

    /// What a worker takes at once, at most.
    private static let pieceByteCount: UInt64 = 8 << 20
    /// What is read and then written: small, so that it is still in the processor's cache when it is written.
    private static let chunkByteCount: UInt64 = 256 << 10

    /// Copies what is not zero. `target` is as large as `source` or larger and reads as zeros throughout; it is
    /// flushed when this returns. Blocks.
    public static func run(
        from source: BlockNode, to target: BlockNode, _ options: Options, progress: (_ done: UInt64) throws -> Void
    ) throws {
        let compressor = options.compresses ? target.driver as? any CompressedWriting : nil
        guard !options.compresses || compressor != nil else {
            throw ColdframeError(
                .unsupported, "Compression not supported for this file format ('\(target.driver.driverName)')")
        }
        let unit = compressor?.compressionUnitByteCount ?? 1
        let bufferByteCount = max(unit, chunkByteCount)
        let pieces = DataPieces(
            of: source, unitByteCount: unit, limit: max(pieceByteCount / bufferByteCount, 1) * bufferByteCount)
        let work = ImageWork(byteCount: source.byteCount, bufferByteCount: bufferByteCount) { try pieces.next() }
        let writeback = EarlyWriteback(of: target)
        try work.run(workerCount: max(1, options.workerCount), progress: progress) { offset, byteCount, buffer in
            if let compressor {
                try copyCompressed(source, compressor, offset, byteCount, buffer, unit: Int(unit))
            } else {
                try copy(source, target, offset, byteCount, buffer)
            }
            writeback.note(byteCount)
        }
        try target.flush()
    }

    private static func copy(
        _ source: BlockNode, _ target: BlockNode, _ offset: UInt64, _ byteCount: Int,
        _ buffer: UnsafeMutableRawBufferPointer
    ) throws {
        try forEachChunk(of: offset..<offset + UInt64(byteCount), at: UInt64(buffer.count)) { range in
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
            try source.read(into: part, at: range.lowerBound)
            let bytes = UnsafeRawBufferPointer(part)
            try ZeroSearch.forEachDataRun(bytes, at: range.lowerBound) { run in
                try target.write(
                    UnsafeRawBufferPointer(rebasing: bytes[run]), at: range.lowerBound + UInt64(run.lowerBound))
            }
        }
    }

    /// Cuts a range at multiples of `byteCount`.
    private static func forEachChunk(
        of range: Range<UInt64>, at byteCount: UInt64, _ body: (Range<UInt64>) throws -> Void
    ) throws {
        var position = range.lowerBound
        while position < range.upperBound {
            let end = min(range.upperBound, (position / byteCount + 1) * byteCount)
            try body(position..<end)
            position = end
        }
    }

    /// Whole units are compressed, those of zeros are left out.
    private static func copyCompressed(
        _ source: BlockNode, _ target: any CompressedWriting, _ offset: UInt64, _ byteCount: Int,
        _ buffer: UnsafeMutableRawBufferPointer, unit: Int
    ) throws {
        try forEachChunk(of: offset..<offset + UInt64(byteCount), at: UInt64(buffer.count)) { range in
            let chunk = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
            try source.read(into: chunk, at: range.lowerBound)
            var position = 0
            while position < chunk.count {
                let end = min(chunk.count, position + unit)
                let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(chunk)[position..<end])
                if !ZeroSearch.isZero(bytes) {
                    try target.writeCompressed(bytes, at: range.lowerBound + UInt64(position))
                }
                position = end
            }
        }
    }
}

/// Has the host write while there is more to copy, so that the flush at the end has little left.
private final class EarlyWriteback: Sendable {
    private static let intervalByteCount = 8 << 20
    private let target: (any WritebackStarting)?
    private let copiedByteCount = Atomic<Int>(0)

    init(of target: BlockNode) { self.target = target.driver as? any WritebackStarting }

    func note(_ byteCount: Int) {
        let now = copiedByteCount.add(byteCount, ordering: .relaxed).newValue
        if now / Self.intervalByteCount != (now - byteCount) / Self.intervalByteCount { target?.startWriteback() }
    }
}

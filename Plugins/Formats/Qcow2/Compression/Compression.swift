import CZlib
import CZstd

/// How an image's clusters are compressed: the header's "compression type".
enum Compression: UInt8, Sendable {
    /// A raw deflate stream with a window of 4 KiB.
    case deflate = 0
    /// A Zstandard frame.
    case zstd = 1

    /// QAPI's name.
    var name: String { self == .deflate ? "zlib" : "zstd" }

    /// Fills `plain` from a stream that begins `packed` and may end before it does. False if it is damaged or too short.
    func decompress(_ packed: UnsafeRawBufferPointer, into plain: UnsafeMutableRawBufferPointer) -> Bool {
        switch self {
        case .deflate: Self.inflate(packed, plain)
        case .zstd: Self.decompressZstd(packed, plain)
        }
    }

    /// Compresses `plain` into `packed`; nil if it does not fit.
    func compress(_ plain: UnsafeRawBufferPointer, into packed: UnsafeMutableRawBufferPointer) -> Int? {
        switch self {
        case .deflate: Self.deflate(plain, packed)
        case .zstd:
            {
                let count = ZSTD_compress(
                    packed.baseAddress, packed.count, plain.baseAddress, plain.count, ZSTD_CLEVEL_DEFAULT)
                return ZSTD_isError(count) == 0 ? count : nil
            }()
        }
    }

    private static func inflate(_ packed: UnsafeRawBufferPointer, _ plain: UnsafeMutableRawBufferPointer) -> Bool {
        var stream = z_stream()
        // Negative window bits: no zlib header. 15 reads every smaller window as well.
        guard inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            return false
        }
        defer { inflateEnd(&stream) }
        // zlib does not write to its input; the field has no const.
        stream.next_in = UnsafeMutablePointer(mutating: packed.baseAddress?.assumingMemoryBound(to: UInt8.self))
        stream.avail_in = UInt32(packed.count)
        stream.next_out = plain.baseAddress?.assumingMemoryBound(to: UInt8.self)
        stream.avail_out = UInt32(plain.count)
        let result = CZlib.inflate(&stream, Z_FINISH)
        return stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR)
    }

    private static func deflate(_ plain: UnsafeRawBufferPointer, _ packed: UnsafeMutableRawBufferPointer) -> Int? {
        var stream = z_stream()
        // Readers may have a window of 4 KiB only.
        guard
            deflateInit2_(
                &stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
                Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else { return nil }
        defer { deflateEnd(&stream) }
        stream.next_in = UnsafeMutablePointer(mutating: plain.baseAddress?.assumingMemoryBound(to: UInt8.self))
        stream.avail_in = UInt32(plain.count)
        stream.next_out = packed.baseAddress?.assumingMemoryBound(to: UInt8.self)
        stream.avail_out = UInt32(packed.count)
        guard CZlib.deflate(&stream, Z_FINISH) == Z_STREAM_END else { return nil }
        return packed.count - Int(stream.avail_out)
    }

    private static func decompressZstd(
        _ packed: UnsafeRawBufferPointer, _ plain: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard let stream = ZSTD_createDStream() else { return false }
        defer { ZSTD_freeDStream(stream) }
        var input = ZSTD_inBuffer(src: packed.baseAddress, size: packed.count, pos: 0)
        var output = ZSTD_outBuffer(dst: plain.baseAddress, size: plain.count, pos: 0)
        while output.pos < output.size {
            let before = (input.pos, output.pos)
            let result = ZSTD_decompressStream(stream, &output, &input)
            if ZSTD_isError(result) != 0 || (input.pos, output.pos) == before { return false }
        }
        return true
    }
}

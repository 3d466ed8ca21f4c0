import CZlib
import ColdframeKit
import Synchronization

/// Reads compressed clusters: a raw deflate stream each.
///
/// The last cluster is kept, since readers usually go through one in small steps. Several threads decompress at once.
final class Decompressor: Sendable {
    private let file: ImageFile
    private let geometry: Geometry
    private let recent = Mutex<(range: CompressedRange, bytes: [UInt8])?>(nil)

    init(file: ImageFile, geometry: Geometry) {
        self.file = file
        self.geometry = geometry
    }

    /// Fills `buffer` with the cluster's content from byte `skip` on; the range lies within the cluster.
    func read(
        into buffer: UnsafeMutableRawBufferPointer, _ range: CompressedRange, skip: UInt64
    ) throws(ColdframeError) {
        let known = recent.withLock { $0?.range == range ? $0?.bytes : nil }
        let bytes: [UInt8]
        if let known {
            bytes = known
        } else {
            bytes = try decompress(range)
            recent.withLock { $0 = (range, bytes) }
        }
        bytes.withUnsafeBytes { source in
            buffer.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: source[Int(skip)..<Int(skip) + buffer.count]))
        }
    }

    private func decompress(_ range: CompressedRange) throws(ColdframeError) -> [UInt8] {
        guard range.offset < file.byteCount, range.byteCount <= 2 * geometry.clusterByteCount + 512 else {
            throw ColdframeError(
                .corrupt,
                "Compressed cluster at offset \(range.offset) lies outside the image file of \(file.byteCount) bytes")
        }
        // The last sector of a file may be short.
        var packed = [UInt8](repeating: 0, count: Int(range.byteCount))
        try packed.withMutableBytes { buffer throws(ColdframeError) in
            try file.readData(into: buffer, at: HostOffset(range.offset))
        }
        var plain = [UInt8](repeating: 0, count: Int(geometry.clusterByteCount))
        guard inflateRaw(&packed, &plain) else {
            throw ColdframeError(.corrupt, "Compressed cluster at offset \(range.offset) can't be decompressed")
        }
        return plain
    }

    /// True if the stream gave exactly as much as `plain` holds; it may go on behind.
    private func inflateRaw(_ packed: inout [UInt8], _ plain: inout [UInt8]) -> Bool {
        var stream = z_stream()
        // Negative window bits: no zlib header. 15 reads every smaller window as well.
        guard inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            return false
        }
        defer { inflateEnd(&stream) }
        return packed.withUnsafeMutableBytes { input in
            plain.withUnsafeMutableBytes { output in
                stream.next_in = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.avail_in = UInt32(input.count)
                stream.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.avail_out = UInt32(output.count)
                let result = inflate(&stream, Z_FINISH)
                return stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR)
            }
        }
    }
}

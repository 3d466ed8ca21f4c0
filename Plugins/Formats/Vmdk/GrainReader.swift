import CZlib
import ColdframeKit

/// Reads packed grains. Each lies behind a marker: the grain's first sector in the disk (8 bytes) and the packed bytes that
/// follow (4 bytes), a zlib stream.
///
/// Any thread. The last few are kept, since readers go through a grain in small steps; all together take at most
/// `keptByteCount`, or one grain if that is more.
final class GrainReader: Sendable {
    private let image: VmdkImage
    private let recent: RecentValues<UInt64, [UInt8]>
    private static let keptByteCount: UInt64 = 2 << 20
    private static let markerByteCount = 12

    init(_ image: VmdkImage) {
        self.image = image
        recent = RecentValues(limit: Int(Self.keptByteCount / image.header.grainByteCount))
    }

    /// Fills `buffer` from byte `offset` of the disk on; the range lies within one grain, which is packed.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let size = image.header.grainByteCount
        let start = offset / size * size
        if UInt64(buffer.count) == size { return try unpack(start, into: buffer) }
        let grain = try recent.value(for: start) { () throws(ColdframeError) in
            // The last one may end with the disk.
            var bytes = [UInt8](repeating: 0, count: Int(min(size, image.header.diskByteCount - start)))
            try bytes.withMutableBytes { (bytes) throws(ColdframeError) in try unpack(start, into: bytes) }
            return bytes
        }
        let skip = Int(offset - start)
        grain.withBytes { bytes in
            buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[skip..<skip + buffer.count]))
        }
    }

    /// Fills `plain` from the beginning of the grain at byte `start` of the disk.
    private func unpack(_ start: UInt64, into plain: UnsafeMutableRawBufferPointer) throws(ColdframeError) {
        let place = try image.packedOffset(start)
        let file = image.file.direct
        let marker = try file.part(byteCount: Self.markerByteCount, at: place, "The marker of the grain at \(start)")
        let count = marker.littleEndian(UInt32.self, at: 8)
        // What does not get smaller grows by a few bytes.
        guard marker.littleEndian(UInt64.self, at: 0) == start / 512, count > 0,
            UInt64(count) <= 2 * image.header.grainByteCount
        else {
            throw ColdframeError(.corrupt, "The marker at \(place) is not that of the grain at \(start)")
        }
        let packed = try file.part(
            byteCount: Int(count), at: place + UInt64(Self.markerByteCount), "The grain at \(start)")
        let isWhole = packed.withBytes { Self.inflate($0, plain) }
        guard isWhole else {
            throw ColdframeError(.corrupt, "The grain at \(start), which lies at \(place), cannot be unpacked")
        }
    }

    /// Fills `plain` from a zlib stream; false if it is damaged or shorter.
    private static func inflate(_ packed: UnsafeRawBufferPointer, _ plain: UnsafeMutableRawBufferPointer) -> Bool {
        var stream = z_stream()
        guard inflateInit_(&stream, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else { return false }
        defer { inflateEnd(&stream) }
        // zlib does not write to its input; the field has no const.
        stream.next_in = UnsafeMutablePointer(mutating: packed.baseAddress?.assumingMemoryBound(to: UInt8.self))
        stream.avail_in = UInt32(packed.count)
        stream.next_out = plain.baseAddress?.assumingMemoryBound(to: UInt8.self)
        stream.avail_out = UInt32(plain.count)
        let result = CZlib.inflate(&stream, Z_FINISH)
        return stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR)
    }
}

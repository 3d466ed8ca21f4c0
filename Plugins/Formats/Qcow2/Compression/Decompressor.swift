import ColdframeKit
import LinuxSystem

/// Reads compressed clusters. Any number of threads decompress at once.
///
/// The last few clusters are kept, since readers usually go through one in small steps.
final class Decompressor: Sendable {
    private let file: ImageFile
    private let geometry: Geometry
    private let compression: Compression
    private let recent = Locked(Recent())

    private struct Recent {
        var clusters: [(range: CompressedRange, bytes: [UInt8])] = []
        var next = 0
    }

    /// As many readers as go through an image in small steps at once; bounded by memory for large clusters.
    private var recentLimit: Int { max(1, min(8, (2 << 20) / Int(geometry.clusterByteCount))) }

    init(file: ImageFile, geometry: Geometry, compression: Compression) {
        self.file = file
        self.geometry = geometry
        self.compression = compression
    }

    /// Fills `buffer` with the cluster's content from byte `skip` on; the range lies within the cluster.
    func read(
        into buffer: UnsafeMutableRawBufferPointer, _ range: CompressedRange, skip: UInt64
    ) throws(ColdframeError) {
        if UInt64(buffer.count) == geometry.clusterByteCount { return try decompress(range, into: buffer) }
        let known = recent.withLock { recent in recent.clusters.first { $0.range == range }?.bytes }
        let bytes: [UInt8]
        if let known {
            bytes = known
        } else {
            var plain = [UInt8](repeating: 0, count: Int(geometry.clusterByteCount))
            try plain.withMutableBytes { plain throws(ColdframeError) in try decompress(range, into: plain) }
            keep(range, plain)
            bytes = plain
        }
        bytes.withUnsafeBytes { source in
            buffer.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: source[Int(skip)..<Int(skip) + buffer.count]))
        }
    }

    private func keep(_ range: CompressedRange, _ bytes: [UInt8]) {
        let limit = recentLimit
        recent.withLock { recent in
            if recent.clusters.count < limit {
                recent.clusters.append((range, bytes))
            } else {
                recent.clusters[recent.next] = (range, bytes)
                recent.next = (recent.next + 1) % limit
            }
        }
    }

    /// The host clusters serve something else from now on.
    func forget() { recent.withLock { $0 = Recent() } }

    private func decompress(
        _ range: CompressedRange, into plain: UnsafeMutableRawBufferPointer
    ) throws(ColdframeError) {
        guard range.offset < file.byteCount, range.byteCount <= 2 * geometry.clusterByteCount + 512 else {
            throw ColdframeError(
                .corrupt,
                "Compressed cluster at offset \(range.offset) lies outside the image file of \(file.byteCount) bytes")
        }
        let packed = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(range.byteCount), alignment: 4096)
        defer { packed.deallocate() }
        // The last sector of a file may be short.
        try file.readData(into: packed, at: HostOffset(range.offset))
        guard compression.decompress(UnsafeRawBufferPointer(packed), into: plain) else {
            // The guest's data, not the image's bookkeeping: a write that was not flushed leaves this after a power loss.
            throw ColdframeError(
                .io, "Compressed cluster at offset \(range.offset) can't be decompressed", errno: Errno.io)
        }
    }
}

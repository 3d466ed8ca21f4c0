import ColdframeKit
import LinuxSystem

/// A read-only disk of pieces of every kind, whose content a test can predict: clusters lie in a host file in reverse
/// order, are zero, or must be read through the driver.
final class PatternDisk: BlockDriver, ExtentSource {
    enum Cluster: Sendable { case data, zero, opaque }

    let driverName = "pattern"
    let isReadOnly = true
    let threadModel = ThreadModel.parallel
    let displayFilename = "pattern"
    let byteCount: UInt64
    private let clusterByteCount: Int
    private let clusters: [Cluster]
    private let file: Descriptor
    private let failsBehind: UInt64

    var descriptor: Int32 { file.raw }

    /// Writes the content to `path` (the host file) and to `path.expected` (the disk as it must read).
    init(
        path: String, clusters: [Cluster], clusterByteCount: Int = 65536, tailByteCount: Int = 0,
        failsBehind: UInt64 = .max
    ) throws {
        self.clusters = clusters
        self.clusterByteCount = clusterByteCount
        self.failsBehind = failsBehind
        byteCount = UInt64(clusters.count * clusterByteCount - tailByteCount)
        file = try Descriptor.open(path, [.readWrite, .create])
        let expected = try Descriptor.open(path + ".expected", [.readWrite, .create])
        for (index, cluster) in clusters.enumerated() {
            let bytes = Self.content(index, cluster, clusterByteCount)
            if cluster == .data {
                _ = try bytes.withUnsafeBytes {
                    try file.pwriteAll($0, at: Self.place(index, clusters.count, clusterByteCount))
                }
            }
            let offset = UInt64(index * clusterByteCount)
            let length = min(bytes.count, Int(byteCount - offset))
            _ = try bytes.withUnsafeBytes {
                try expected.pwriteAll(UnsafeRawBufferPointer(rebasing: $0[..<length]), at: offset)
            }
        }
    }

    private static func content(_ index: Int, _ cluster: Cluster, _ byteCount: Int) -> [UInt8] {
        if cluster == .zero { return [UInt8](repeating: 0, count: byteCount) }
        let start = index &* 37 % 256
        return Array(pattern[start..<start + byteCount])
    }

    /// Made once: the tests run unoptimised. Every cluster is a different window of it.
    private static let pattern: [UInt8] = (0..<65536 + 256).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 &+ 1) }

    private static func place(_ index: Int, _ count: Int, _ clusterByteCount: Int) -> UInt64 {
        UInt64((count - 1 - index) * clusterByteCount)
    }

    func truncateHostFile() throws { try file.truncate(toByteCount: 0) }

    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        if offset + UInt64(buffer.count) > failsBehind { throw ColdframeError(.io, "The test wants it to fail") }
        var done = 0
        while done < buffer.count {
            let position = Int(offset) + done
            let index = position / clusterByteCount
            let start = position % clusterByteCount
            let length = min(clusterByteCount - start, buffer.count - done)
            let bytes = Self.content(index, clusters[index], clusterByteCount)
            bytes.withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + length])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[start..<start + length]))
            }
            done += length
        }
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        var extents: [Extent] = []
        var position = offset
        let end = offset + byteCount
        while position < end, extents.count < limit {
            let index = Int(position) / clusterByteCount
            let next = min(end, UInt64((index + 1) * clusterByteCount))
            let kind: Extent.Kind =
                switch clusters[index] {
                case .zero: .zero(allocated: false)
                case .opaque: .opaque
                case .data:
                    .data(
                        source: self,
                        hostOffset: Self.place(index, clusters.count, clusterByteCount)
                            + position % UInt64(clusterByteCount))
                }
            extents.append(Extent(offset: position, byteCount: next - position, kind: kind))
            position = next
        }
        return extents
    }

    func write(_: UnsafeRawBufferPointer, at: UInt64, flags: WriteFlags) throws(ColdframeError) { throw readOnly }
    func writeZeroes(at: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) { throw readOnly }
    func discard(at: UInt64, byteCount: UInt64) throws(ColdframeError) { throw readOnly }
    func flush() throws(ColdframeError) {}
    func close() throws(ColdframeError) {}
    private var readOnly: ColdframeError { ColdframeError(.permission, "Read-only") }
}

/// A state of which byte `n` is `n * 13`.
final class PatternState: VMStateReader {
    let byteCount: UInt64
    init(byteCount: UInt64) { self.byteCount = byteCount }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        for index in 0..<buffer.count { buffer[index] = UInt8(truncatingIfNeeded: (Int(offset) + index) &* 13) }
    }
}

import ColdframeKit
import LinuxSystem
import Synchronization

/// The file of a sidecar: clusters by number, growth in steps, flushes. Any thread.
final class SidecarFile: Sendable {
    let node: BlockNode
    let clusterBits: UInt64
    private let io: DirectIO
    private let growth = PlainMutex()
    private let knownByteCount: Atomic<UInt64>
    private static let growthByteCount: UInt64 = 4 << 20

    init(_ node: BlockNode, clusterBits: UInt32) {
        self.node = node
        self.clusterBits = UInt64(clusterBits)
        io = node.direct
        knownByteCount = Atomic(node.byteCount)
    }

    var clusterByteCount: Int { 1 << Int(clusterBits) }
    var byteCount: UInt64 { knownByteCount.load(ordering: .acquiring) }
    /// Clusters that lie in the file as a whole.
    var clusterCount: UInt64 { byteCount >> clusterBits }
    var path: String { node.driver.displayFilename }

    func offset(ofCluster cluster: UInt32) -> UInt64 { UInt64(cluster) << clusterBits }

    /// Reads what must lie in the file; `what` names it in the error.
    func read(
        into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, _ what: @autoclosure () -> String
    ) throws(ColdframeError) {
        let size = byteCount
        guard offset <= size, UInt64(buffer.count) <= size - offset else {
            throw ColdframeError(
                .corrupt,
                "\(what()) of sidecar '\(path)' (\(buffer.count) bytes at \(offset)) lies outside the file of \(size) "
                    + "bytes: the file was cut short")
        }
        try io.read(into: buffer, at: offset)
    }

    /// The same as an array; the caller has bounded `byteCount`.
    func read(byteCount: Int, at offset: UInt64, _ what: @autoclosure () -> String) throws(ColdframeError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        try bytes.withMutableBytes { buffer throws(ColdframeError) in try read(into: buffer, at: offset, what()) }
        return bytes
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try ensureByteCount(offset + UInt64(bytes.count))
        try io.write(bytes, at: offset, flags: [])
    }

    func write(_ bytes: [UInt8], at offset: UInt64) throws(ColdframeError) {
        try bytes.withBytes { buffer throws(ColdframeError) in try write(buffer, at: offset) }
    }

    /// Takes a range of another file over without a copy; false if that cannot be.
    func share(
        _ source: any BlockDriver, at sourceOffset: UInt64, byteCount: UInt64, to offset: UInt64
    ) throws(ColdframeError) -> Bool {
        guard let source = source as? any ExtentSource, let sharing = node.driver as? any RangeSharing else {
            return false
        }
        try ensureByteCount(offset + byteCount)
        return try sharing.share(source, at: sourceOffset, byteCount: byteCount, to: offset)
    }

    func flush() throws(ColdframeError) { try io.flush() }

    /// Gives the space of free clusters back to the host. A hint: an error costs space only.
    func discard(_ run: ClusterRun) {
        let start = offset(ofCluster: run.first)
        guard start < byteCount else { return }
        try? io.discard(at: start, byteCount: min(UInt64(run.count) << clusterBits, byteCount - start))
    }

    /// Makes the file at least so long. New space reads as zeros.
    func ensureByteCount(_ wanted: UInt64) throws(ColdframeError) {
        guard wanted > byteCount else { return }
        growth.lock()
        defer { growth.unlock() }
        guard wanted > byteCount else { return }
        guard let driver = node.driver as? any Growable else {
            throw ColdframeError(
                .unsupported,
                "Sidecar '\(path)' cannot grow: driver '\(node.driver.driverName)' has a fixed size", errno: 28)
        }
        let step = Self.growthByteCount
        try driver.grow(toByteCount: wanted < step ? roundUp(wanted) : (wanted + step - 1) & ~(step - 1))
        knownByteCount.store(node.byteCount, ordering: .releasing)
    }

    private func roundUp(_ byteCount: UInt64) -> UInt64 {
        (byteCount + UInt64(clusterByteCount) - 1) & ~(UInt64(clusterByteCount) - 1)
    }
}

/// Neighbouring clusters of a sidecar.
struct ClusterRun: Equatable, Sendable {
    var first: UInt32
    var count: UInt32
    /// First cluster behind the run.
    var end: UInt64 { UInt64(first) + UInt64(count) }
}

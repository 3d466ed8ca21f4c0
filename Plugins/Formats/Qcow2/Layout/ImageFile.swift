import ColdframeKit
import LinuxSystem
import Synchronization

/// The file behind an image: bounds of metadata, zeros behind its end, growth and flushes.
///
/// Any thread. Requests have passed the gate of the qcow2 node, so the child is used behind its own.
final class ImageFile: Sendable {
    let node: BlockNode
    private let io: DirectIO
    private let growth = PlainMutex()
    private let knownByteCount: Atomic<UInt64>

    init(_ node: BlockNode) {
        self.node = node
        io = node.direct
        knownByteCount = Atomic(node.byteCount)
    }

    var byteCount: UInt64 { knownByteCount.load(ordering: .acquiring) }

    /// What serves exports without a copy, if the child is a plain file.
    var extentSource: (any ExtentSource)? { node.driver as? any ExtentSource }

    /// Says what is about to be done with the file.
    @inline(__always)
    func announce(_ step: BlockStep) { io.announce(step) }

    // MARK: Metadata

    /// Reads a structure that must lie within the file; `what` names it in the error.
    func readMetadata(
        into buffer: UnsafeMutableRawBufferPointer, at offset: HostOffset, _ what: @autoclosure () -> String
    ) throws(ColdframeError) {
        let size = byteCount
        guard offset.rawValue <= size, UInt64(buffer.count) <= size - offset.rawValue else {
            throw ColdframeError(
                .corrupt,
                "\(what()) at offset \(offset.rawValue) (\(buffer.count) bytes) lies outside the image file of \(size) bytes"
            )
        }
        try io.read(into: buffer, at: offset.rawValue)
    }

    /// The same as an array; the caller has bounded `byteCount`.
    func readMetadata(
        byteCount: Int, at offset: HostOffset, _ what: @autoclosure () -> String
    ) throws(ColdframeError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        try bytes.withMutableBytes { buffer throws(ColdframeError) in
            try readMetadata(into: buffer, at: offset, what())
        }
        return bytes
    }

    /// A table of 64-bit words, in host order.
    func readWords(
        count: Int, at offset: HostOffset, _ what: @autoclosure () -> String
    ) throws(ColdframeError) -> [UInt64] {
        guard count > 0 else { return [] }
        var words = [UInt64](repeating: 0, count: count)
        try words.withUnsafeMutableBufferPointer { buffer throws(ColdframeError) in
            try readMetadata(into: UnsafeMutableRawBufferPointer(buffer), at: offset, what())
            swapWords(buffer)
        }
        return words
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: HostOffset) throws(ColdframeError) {
        try io.write(bytes, at: offset.rawValue, flags: [])
    }

    func write(_ bytes: [UInt8], at offset: HostOffset) throws(ColdframeError) {
        try bytes.withBytes { buffer throws(ColdframeError) in try write(buffer, at: offset) }
    }

    /// Writes a table of 64-bit words given in host order.
    func writeWords(_ words: [UInt64], at offset: HostOffset) throws(ColdframeError) {
        var swapped = words
        try swapped.withUnsafeMutableBufferPointer { buffer throws(ColdframeError) in
            swapWords(buffer)
            try write(UnsafeRawBufferPointer(buffer), at: offset)
        }
    }

    // MARK: Guest data

    /// Fills `buffer`; what lies behind the end of the file reads as zeros, as a last cluster that was never written
    /// to its end does.
    func readData(into buffer: UnsafeMutableRawBufferPointer, at offset: HostOffset) throws(ColdframeError) {
        let size = byteCount
        let present = offset.rawValue >= size ? 0 : min(UInt64(buffer.count), size - offset.rawValue)
        if present > 0 {
            try io.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(present)]), at: offset.rawValue)
        }
        if present < UInt64(buffer.count) {
            UnsafeMutableRawBufferPointer(rebasing: buffer[Int(present)...]).initializeMemory(
                as: UInt8.self, repeating: 0)
        }
    }

    func writeZeroes(at offset: HostOffset, byteCount: UInt64) throws(ColdframeError) {
        try io.writeZeroes(at: offset.rawValue, byteCount: byteCount, flags: [])
    }

    /// Gives the space of free clusters back to the host. A hint: errors are of no consequence.
    func discard(at offset: HostOffset, byteCount: UInt64) {
        let size = self.byteCount
        guard offset.rawValue < size else { return }
        try? io.discard(at: offset.rawValue, byteCount: min(byteCount, size - offset.rawValue))
    }

    func extents(at offset: HostOffset, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try io.extents(at: offset.rawValue, byteCount: byteCount, limit: limit)
    }

    func flush() throws(ColdframeError) { try io.flush() }

    // MARK: Size

    /// Makes the file at least so long. New space reads as zeros.
    func ensureByteCount(_ wanted: UInt64) throws(ColdframeError) {
        guard wanted > byteCount else { return }
        growth.lock()
        defer { growth.unlock() }
        guard wanted > byteCount else { return }
        guard let driver = node.driver as? any Growable else { throw fixedSize }
        try driver.grow(toByteCount: wanted)
        noteByteCount()
    }

    /// Cuts the file, if its kind can be cut; nothing behind `wanted` may be in use.
    func truncate(toByteCount wanted: UInt64) throws(ColdframeError) {
        growth.lock()
        defer { growth.unlock() }
        guard wanted < byteCount else { return }
        guard let driver = node.driver as? any Resizable else { throw fixedSize }
        try driver.resize(toByteCount: wanted)
        noteByteCount()
    }

    /// A device keeps its size, and some files grow by more.
    private func noteByteCount() { knownByteCount.store(node.byteCount, ordering: .releasing) }

    private var fixedSize: ColdframeError {
        ColdframeError(
            .unsupported,
            "Image file '\(node.driver.displayFilename)' cannot grow: driver '\(node.driver.driverName)' has a fixed size",
            errno: 28)
    }
}

import ColdframeKit
import LinuxSystem

/// A disk that keeps nothing. Any number of threads: nothing ever changes.
final class NullDriver: BlockDriver {
    let driverName: String
    let threadModel = ThreadModel.parallel
    let byteCount: UInt64
    let isReadOnly: Bool
    let displayFilename: String
    private let latencyNanoseconds: UInt64
    private let isKnownZero: Bool

    /// - Parameters:
    ///   - latencyNanoseconds: how long each read, write and flush blocks its thread.
    ///   - isKnownZero: extents say that the disk is zero, which it is in any case.
    init(
        driverName: String, byteCount: UInt64, latencyNanoseconds: UInt64, isKnownZero: Bool, isReadOnly: Bool,
        displayFilename: String
    ) {
        self.driverName = driverName
        self.byteCount = byteCount
        self.latencyNanoseconds = latencyNanoseconds
        self.isKnownZero = isKnownZero
        self.isReadOnly = isReadOnly
        self.displayFilename = displayFilename
    }

    func information() throws(ColdframeError) -> BlockInformation { BlockInformation(allocatedByteCount: 0) }

    /// Always zeros: a buffer that is left as it is would show a client what another one has read.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
        SystemThread.sleep(nanoseconds: latencyNanoseconds)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        SystemThread.sleep(nanoseconds: latencyNanoseconds)
    }

    /// As in QEMU, zeroing is a write of zeros: a caller that wants a fast one is refused.
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        guard !flags.contains(.noFallback) else {
            throw ColdframeError(
                .unsupported, "Driver '\(driverName)' has no fast way to write zeros", errno: Errno.notSupported)
        }
        SystemThread.sleep(nanoseconds: latencyNanoseconds)
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}

    func flush() throws(ColdframeError) { SystemThread.sleep(nanoseconds: latencyNanoseconds) }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: isKnownZero ? .zero(allocated: false) : .opaque)]
    }

    func close() throws(ColdframeError) {}
}

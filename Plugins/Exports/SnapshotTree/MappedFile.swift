import ColdframeKit
import LinuxSystem

/// A host file mapped as a whole, from which the kernel is told to send.
///
/// Only the kernel touches the pages: where the file was cut short behind our back it ends the one request with EIO, and
/// this process does not get SIGBUS.
final class MappedFile: Sendable {
    private let mapping: ReadOnlyMapping
    /// The driver's descriptor, borrowed: it lives as long as the driver, which outlives this object.
    private let descriptor: Descriptor
    /// Keeps the identity of the source from being used again.
    private let source: any ExtentSource

    /// nil if the file cannot be mapped (a device without a size, too little address space): then one copies.
    init?(_ source: any ExtentSource) {
        let descriptor = Descriptor(owning: source.descriptor)
        let mapping: ReadOnlyMapping
        do {
            let status = try descriptor.status()
            let size = status.isBlockDevice ? try descriptor.blockDeviceByteCount() : status.byteCount
            guard status.isRegularFile || status.isBlockDevice, let byteCount = Int(exactly: size), byteCount > 0 else {
                _ = descriptor.release()
                return nil
            }
            mapping = try ReadOnlyMapping(descriptor, byteCount: byteCount)
        } catch {
            _ = descriptor.release()
            return nil
        }
        self.mapping = mapping
        self.descriptor = descriptor
        self.source = source
    }

    deinit { _ = descriptor.release() }

    /// Where the range is mapped, or nil if it does not lie within the file as it was when it was mapped.
    func address(of hostOffset: UInt64, byteCount: UInt64) -> UnsafeRawPointer? {
        let size = UInt64(mapping.byteCount)
        guard hostOffset <= size, byteCount <= size - hostOffset else { return nil }
        return mapping.pointer + Int(hostOffset)
    }

    /// Starts to read the range into the page cache. Page faults of a cold file would fetch it page by page otherwise.
    func adviseWillNeed(hostOffset: UInt64, byteCount: UInt64) {
        descriptor.adviseWillNeed(offset: hostOffset, byteCount: byteCount)
    }
}

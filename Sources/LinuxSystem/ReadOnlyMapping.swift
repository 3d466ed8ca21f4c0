import CLinux
import Glibc

/// A file mapped for reading (`mmap(2)` PROT_READ, MAP_SHARED) until the last reference goes.
///
/// Code of this process must not touch pages behind the end of a file that others may truncate (SIGBUS); the kernel,
/// told to send from them, gets an error instead.
public final class ReadOnlyMapping: @unchecked Sendable {
    // Unchecked: both are constant and the memory is only read.
    public let pointer: UnsafeRawPointer
    public let byteCount: Int

    /// Maps the first `byteCount` bytes, more than 0. The descriptor may be closed afterwards.
    public init(_ descriptor: Descriptor, byteCount: Int) throws(SystemError) {
        guard byteCount > 0 else { throw SystemError(errno: EINVAL, operation: "mmap") }
        try SystemCall.checkFault("mmap", nil)
        guard let address = cf_map_read_only(descriptor.raw, byteCount) else {
            throw SystemError(errno: errno, operation: "mmap")
        }
        pointer = UnsafeRawPointer(address)
        self.byteCount = byteCount
    }

    deinit { munmap(UnsafeMutableRawPointer(mutating: pointer), byteCount) }

    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: pointer, count: byteCount) }

    /// `sysconf(3)` _SC_PAGESIZE.
    public static let pageByteCount = Int(sysconf(Int32(_SC_PAGESIZE)))
}

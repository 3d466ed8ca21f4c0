import ColdframeKit
import LinuxSystem

/// A file in memory of bounded length. An access outside it ends the process: images must never cause one.
final class FuzzFile: BlockDriver, Resizable {
    let driverName = "fuzz-file"
    let isReadOnly: Bool
    let threadModel = ThreadModel.parallel
    let displayFilename = "fuzz:"
    private let content: Locked<[UInt8]>

    /// A file that an image makes larger than this is full.
    static let byteLimit: UInt64 = 4 << 20

    init(_ bytes: [UInt8], isReadOnly: Bool) {
        content = Locked(bytes)
        self.isReadOnly = isReadOnly
    }

    var byteCount: UInt64 { UInt64(content.withLock { $0.count }) }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        // The caller's buffer outlives the call.
        nonisolated(unsafe) let buffer = buffer
        content.withLock { bytes in
            precondition(offset <= bytes.count && buffer.count <= bytes.count - Int(offset), "read outside the file")
            bytes.withUnsafeBytes {
                buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[Int(offset)..<Int(offset) + buffer.count]))
            }
        }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        nonisolated(unsafe) let buffer = buffer
        content.withLock { bytes in
            precondition(offset <= bytes.count && buffer.count <= bytes.count - Int(offset), "write outside the file")
            bytes.withUnsafeMutableBytes {
                UnsafeMutableRawBufferPointer(rebasing: $0[Int(offset)..<Int(offset) + buffer.count]).copyMemory(
                    from: buffer)
            }
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        content.withLock { bytes in
            precondition(offset <= bytes.count && byteCount <= UInt64(bytes.count) - offset, "zeroes outside the file")
            for index in Int(offset)..<Int(offset + byteCount) { bytes[index] = 0 }
        }
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try writeZeroes(at: offset, byteCount: byteCount, flags: [])
    }

    func flush() throws(ColdframeError) {}

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: .opaque)]
    }

    func resize(toByteCount wanted: UInt64) throws(ColdframeError) {
        guard wanted <= Self.byteLimit else { throw ColdframeError(.io, "The file is full", errno: 28) }
        content.withLock { bytes in
            if wanted < bytes.count { bytes.removeLast(bytes.count - Int(wanted)) }
            bytes += [UInt8](repeating: 0, count: Int(wanted) - bytes.count)
        }
    }

    func close() throws(ColdframeError) {}
}

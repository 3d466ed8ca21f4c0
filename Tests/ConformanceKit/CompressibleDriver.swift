import ColdframeKit

/// A disk that takes compressed writes and stores them as they are: for what stands above a format that has compression. It
/// refuses ranges that `CompressedWriting` does not allow.
public final class CompressibleDriver: CompressedWriting, Resizable {
    public let compressionUnitByteCount: UInt64
    private let inner: any BlockDriver

    public init(_ inner: any BlockDriver, unitByteCount: UInt64 = 4096) {
        self.inner = inner
        compressionUnitByteCount = unitByteCount
    }

    public func writeCompressed(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let end = offset + UInt64(buffer.count)
        guard !buffer.isEmpty, offset % compressionUnitByteCount == 0,
            end % compressionUnitByteCount == 0 || end == byteCount
        else {
            throw ColdframeError(.invalidArgument, "A compressed write of \(buffer.count) bytes at \(offset)")
        }
        try inner.write(buffer, at: offset, flags: [])
    }

    public func resize(toByteCount: UInt64) throws(ColdframeError) {
        guard let inner = inner as? any Resizable else {
            throw ColdframeError(.unsupported, "Image format driver does not support resize")
        }
        try inner.resize(toByteCount: toByteCount)
    }

    public var driverName: String { inner.driverName }
    public var byteCount: UInt64 { inner.byteCount }
    public var isReadOnly: Bool { inner.isReadOnly }
    public var threadModel: ThreadModel { inner.threadModel }
    public var displayFilename: String { inner.displayFilename }
    public func information() throws(ColdframeError) -> BlockInformation { try inner.information() }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try inner.read(into: buffer, at: offset)
    }

    public func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try inner.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try inner.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try inner.discard(at: offset, byteCount: byteCount)
    }

    public func flush() throws(ColdframeError) { try inner.flush() }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try inner.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    public func close() throws(ColdframeError) { try inner.close() }
}

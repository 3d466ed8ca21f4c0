import ColdframeKit

/// Asks a test before each request, and then passes it on: the test may wait, count, or throw for the request to fail.
public final class HookedDriver: BlockDriver, Resizable {
    public enum Request: Sendable { case read, write, writeZeroes, flush, extents, resize }
    public typealias Hook = @Sendable (_ request: Request, _ range: Range<UInt64>) throws(ColdframeError) -> Void

    private let inner: any BlockDriver & Resizable
    private let hook: Hook
    /// What `extents` calls zero, whatever is there.
    private let zeroes: Range<UInt64>

    public init(
        _ inner: any BlockDriver & Resizable, zeroes: Range<UInt64> = 0..<0, hook: @escaping Hook = { _, _ in }
    ) {
        self.inner = inner
        self.zeroes = zeroes
        self.hook = hook
    }

    public var driverName: String { inner.driverName }
    public var byteCount: UInt64 { inner.byteCount }
    public var isReadOnly: Bool { inner.isReadOnly }
    public var threadModel: ThreadModel { inner.threadModel }
    public var displayFilename: String { inner.displayFilename }
    public func information() throws(ColdframeError) -> BlockInformation { try inner.information() }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try hook(.read, offset..<offset + UInt64(buffer.count))
        try inner.read(into: buffer, at: offset)
    }

    public func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try hook(.write, offset..<offset + UInt64(buffer.count))
        try inner.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try hook(.writeZeroes, offset..<offset + byteCount)
        try inner.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try inner.discard(at: offset, byteCount: byteCount)
    }

    public func flush() throws(ColdframeError) {
        try hook(.flush, 0..<0)
        try inner.flush()
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try hook(.extents, offset..<offset + byteCount)
        let range = offset..<offset + byteCount
        var list = ExtentList(limit: limit)
        let zero = zeroes.clamped(to: range)
        for (piece, isZero) in [
            (range.lowerBound..<zero.lowerBound, false), (zero, true), (zero.upperBound..<range.upperBound, false),
        ] {
            list.append(
                Extent(
                    offset: piece.lowerBound, byteCount: piece.upperBound - piece.lowerBound,
                    kind: isZero ? .zero(allocated: true) : .opaque))
        }
        return list.extents
    }

    public func resize(toByteCount: UInt64) throws(ColdframeError) {
        try hook(.resize, 0..<toByteCount)
        try inner.resize(toByteCount: toByteCount)
    }

    public func close() throws(ColdframeError) { try inner.close() }
}

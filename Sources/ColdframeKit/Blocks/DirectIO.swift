/// The data methods of a node for those that stand behind its gate: its parents in the graph, and jobs that hold a
/// drain.
///
/// It goes through the `BlockNode` that it was taken from, and so follows it when that is put on another node.
public struct DirectIO: Sendable {
    private let node: BlockNode

    init(_ node: BlockNode) { self.node = node }

    /// Size of the disk in bytes.
    public var byteCount: UInt64 { node.byteCount }

    /// Says what the caller is about to do, to whoever wants to hear it.
    @inline(__always)
    public func announce(_ step: BlockStep) {
        node.withListener { $0.announced(step) }
    }

    @inline(__always)
    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try node.withBody { (body) throws(ColdframeError) in try body.read(into: buffer, at: offset) }
    }

    @inline(__always)
    public func write(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags = []
    ) throws(ColdframeError) {
        try node.withBody { (body) throws(ColdframeError) in try body.write(buffer, at: offset, flags: flags) }
    }

    /// Stores data compressed; an error if the driver cannot. The range is as `CompressedWriting` wants it.
    public func writeCompressed(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try node.withBody { (body) throws(ColdframeError) in try body.writeCompressed(buffer, at: offset) }
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags = []) throws(ColdframeError) {
        try node.withBody { (body) throws(ColdframeError) in
            try body.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try node.withBody { (body) throws(ColdframeError) in try body.discard(at: offset, byteCount: byteCount) }
    }

    public func flush() throws(ColdframeError) {
        try node.withBody { (body) throws(ColdframeError) in try body.flush() }
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try node.withBody { (body) throws(ColdframeError) in
            try body.extents(at: offset, byteCount: byteCount, limit: limit)
        }
    }

    /// Whether the image itself, below filters, has the bytes from `offset` on: as `Layered`. The range lies within the disk.
    public func allocation(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (isAllocated: Bool, byteCount: UInt64) {
        try node.withBody { (body) throws(ColdframeError) in
            try body.allocation(at: offset, byteCount: byteCount)
        }
    }
}

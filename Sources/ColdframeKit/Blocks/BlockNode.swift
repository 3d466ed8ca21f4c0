/// A node of the graph as modules see it: a name and a driver behind a gate.
///
/// Exports and jobs call the data methods here: they pass the gate, and check bounds and read-only inside it (a drained
/// node may change its size). A driver does I/O on its children through `direct`, since the request has passed a gate
/// above.
public final class BlockNode: Sendable {
    public let name: String
    public let driver: any BlockDriver
    public let gate = RequestGate()
    /// Dirty bitmaps that the node's writes are noted in.
    public let bitmaps = NodeBitmaps()
    /// The same I/O behind the gate.
    public let direct: DirectIO

    public init(name: String, driver: any BlockDriver) {
        self.name = name
        self.driver = driver
        direct = DirectIO(driver: driver, bitmaps: bitmaps)
    }

    public var byteCount: UInt64 { driver.byteCount }
    public var isReadOnly: Bool { driver.isReadOnly }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try checkRange(offset, UInt64(buffer.count))
        try direct.read(into: buffer, at: offset)
    }

    public func write(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags = []
    ) throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try checkWritable(offset, UInt64(buffer.count))
        try direct.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags = []) throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try checkWritable(offset, byteCount)
        try direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try checkWritable(offset, byteCount)
        try direct.discard(at: offset, byteCount: byteCount)
    }

    public func flush() throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try direct.flush()
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        gate.enter()
        defer { gate.leave() }
        try checkRange(offset, byteCount)
        return try direct.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    private func checkRange(_ offset: UInt64, _ byteCount: UInt64) throws(ColdframeError) {
        let size = driver.byteCount
        guard offset <= size, byteCount <= size - offset else {
            throw ColdframeError(
                .invalidArgument,
                "Request for \(byteCount) bytes at \(offset) lies outside node '\(name)' of \(size) bytes")
        }
    }

    private func checkWritable(_ offset: UInt64, _ byteCount: UInt64) throws(ColdframeError) {
        if driver.isReadOnly {
            throw ColdframeError(.permission, "Node '\(name)' is read-only")
        }
        try checkRange(offset, byteCount)
    }
}

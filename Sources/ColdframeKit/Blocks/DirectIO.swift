import LinuxSystem

/// The data methods of a node for those that stand behind its gate: its parents in the graph, and jobs that hold a
/// drain. Serialises the calls if the driver asks for it, and notes every write in the node's dirty bitmaps: after it,
/// so that whoever clears a bit and then reads sees the write, and also if it failed, since part of it may be there.
public struct DirectIO: Sendable {
    public let driver: any BlockDriver
    private let serial: PlainMutex?
    private let bitmaps: NodeBitmaps

    init(driver: any BlockDriver, bitmaps: NodeBitmaps) {
        self.driver = driver
        self.bitmaps = bitmaps
        serial = driver.threadModel == .serialized ? PlainMutex() : nil
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        serial?.lock()
        defer { serial?.unlock() }
        try driver.read(into: buffer, at: offset)
    }

    public func write(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags = []
    ) throws(ColdframeError) {
        serial?.lock()
        defer { serial?.unlock() }
        defer { bitmaps.noteWrite(at: offset, byteCount: UInt64(buffer.count)) }
        try driver.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags = []) throws(ColdframeError) {
        serial?.lock()
        defer { serial?.unlock() }
        defer { bitmaps.noteWrite(at: offset, byteCount: byteCount) }
        try driver.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        serial?.lock()
        defer { serial?.unlock() }
        defer { bitmaps.noteWrite(at: offset, byteCount: byteCount) }
        try driver.discard(at: offset, byteCount: byteCount)
    }

    public func flush() throws(ColdframeError) {
        serial?.lock()
        defer { serial?.unlock() }
        try driver.flush()
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        serial?.lock()
        defer { serial?.unlock() }
        return try driver.extents(at: offset, byteCount: byteCount, limit: limit)
    }
}

/// A driver that never writes: it says so, refuses what would change the disk, and has nothing to flush or to close.
///
/// The node above refuses writes before they arrive here; these refusals are for callers without one.
public protocol ReadOnlyDriver: BlockDriver {}

extension ReadOnlyDriver {
    public var isReadOnly: Bool { true }

    public func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        throw readOnlyError
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        throw readOnlyError
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) { throw readOnlyError }

    public func flush() throws(ColdframeError) {}

    /// Files below belong to the graph, which closes them.
    public func close() throws(ColdframeError) {}

    private var readOnlyError: ColdframeError {
        ColdframeError(.permission, "Driver '\(driverName)' does not write to '\(displayFilename)'")
    }
}

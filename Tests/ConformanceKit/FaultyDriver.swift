import ColdframeKit
import LinuxSystem

/// Fails one chosen call, or all from it on, and passes everything else to the driver behind it.
///
/// Counted are the calls that change the image or make it durable: write, write-zeroes, flush and resize. A failed call does
/// nothing.
public final class FaultyDriver: BlockDriver, Resizable, ChangeStamped {
    private let inner: any BlockDriver & Resizable
    private let state = Locked(State())

    private struct State {
        var callCount = 0
        var failing: ClosedRange<Int>?
    }

    public init(_ inner: any BlockDriver & Resizable) { self.inner = inner }

    /// Calls counted since the last `fail` or the beginning.
    public var callCount: Int { state.withLock { $0.callCount } }

    /// Fails call number `n` from now (0 is the next), only it or all after it as well.
    public func fail(call n: Int, andAllAfter: Bool = false) {
        state.withLock { $0 = State(callCount: 0, failing: n...(andAllAfter ? .max : n)) }
    }

    /// Fails nothing any more, and counts from 0.
    public func heal() { state.withLock { $0 = State() } }

    private func pass(_ operation: String) throws(ColdframeError) {
        let fails = state.withLock { state in
            defer { state.callCount += 1 }
            return state.failing?.contains(state.callCount) ?? false
        }
        if fails { throw ColdframeError(.io, "\(operation) was told to fail") }
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
        try pass("write")
        try inner.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try pass("write-zeroes")
        try inner.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try inner.discard(at: offset, byteCount: byteCount)
    }

    public func flush() throws(ColdframeError) {
        try pass("flush")
        try inner.flush()
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try inner.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    public func resize(toByteCount: UInt64) throws(ColdframeError) {
        try pass("resize")
        try inner.resize(toByteCount: toByteCount)
    }

    public func changeStamp() throws(ColdframeError) -> ChangeStamp? {
        try (inner as? any ChangeStamped)?.changeStamp()
    }

    public func close() throws(ColdframeError) { try inner.close() }
}

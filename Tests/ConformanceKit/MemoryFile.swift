import ColdframeKit
import LinuxSystem

/// A file in memory: fast, and without a kernel that flushes. Any number of drivers may be opened on it in turn.
public final class MemoryFile: BlockDriver, Resizable, ChangeStamped {
    public let driverName = "memory-test-file"
    public let isReadOnly = false
    public let threadModel = ThreadModel.parallel
    public let displayFilename = "memory:"
    private let state = Locked(State())

    private struct State {
        var bytes: [UInt8] = []
        var stamp = MemoryFile.now()
    }

    public init() {}

    public var bytes: [UInt8] { state.withLock { $0.bytes } }
    public var byteCount: UInt64 { UInt64(state.withLock { $0.bytes.count }) }

    /// Another content.
    public func replace(with bytes: [UInt8]) {
        state.withLock {
            $0.bytes = bytes
            $0.stamp = Self.now()
        }
    }

    private static func now() -> ChangeStamp {
        let now = SystemClock.realtime()
        return ChangeStamp(seconds: now.seconds, nanoseconds: now.nanoseconds)
    }

    public func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    public func changeStamp() throws(ColdframeError) -> ChangeStamp? { state.withLock { $0.stamp } }

    private func checked(_ offset: UInt64, _ count: Int, _ size: Int) throws(ColdframeError) -> Range<Int> {
        guard offset <= UInt64(size), count <= size - Int(offset) else {
            throw ColdframeError(.invalidArgument, "Request for \(count) bytes at \(offset) of a file of \(size) bytes")
        }
        return Int(offset)..<Int(offset) + count
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        // The caller's buffer outlives the call.
        nonisolated(unsafe) let buffer = buffer
        try state.withLock { state throws(ColdframeError) in
            let range = try self.checked(offset, buffer.count, state.bytes.count)
            state.bytes.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[range])) }
        }
    }

    public func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        nonisolated(unsafe) let buffer = buffer
        try state.withLock { state throws(ColdframeError) in
            let range = try self.checked(offset, buffer.count, state.bytes.count)
            state.bytes.withUnsafeMutableBytes {
                UnsafeMutableRawBufferPointer(rebasing: $0[range]).copyMemory(from: buffer)
            }
            state.stamp = Self.now()
        }
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try state.withLock { state throws(ColdframeError) in
            let range = try self.checked(offset, Int(byteCount), state.bytes.count)
            state.bytes.withUnsafeMutableBytes {
                _ = UnsafeMutableRawBufferPointer(rebasing: $0[range]).initializeMemory(as: UInt8.self, repeating: 0)
            }
            state.stamp = Self.now()
        }
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try writeZeroes(at: offset, byteCount: byteCount, flags: [])
    }

    public func flush() throws(ColdframeError) {}

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: .opaque)]
    }

    public func resize(toByteCount: UInt64) throws(ColdframeError) {
        state.withLock { state in
            let count = Int(toByteCount)
            if count < state.bytes.count { state.bytes.removeLast(state.bytes.count - count) }
            state.bytes += [UInt8](repeating: 0, count: count - state.bytes.count)
            state.stamp = Self.now()
        }
    }

    public func close() throws(ColdframeError) {}
}

import ColdframeKit
import LinuxSystem

/// A volume in memory that knows what was read of it and can fail a read. Any thread.
public final class MemoryVolume: GuestVolume {
    private struct State {
        var readCount = 0
        var failing = 0
        var ranges: [Range<Int>] = []
    }
    private let bytes: [UInt8]
    private let state = Locked(State())

    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    public var byteCount: UInt64 { UInt64(bytes.count) }
    public var readCount: Int { state.withLock { $0.readCount } }
    /// What was read so far.
    public var ranges: [Range<Int>] { state.withLock { $0.ranges } }

    /// The `n`-th read from now on fails, once; 0 for none.
    public func fail(read n: Int) {
        state.withLock { state in
            state.readCount = 0
            state.failing = n
        }
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        guard offset <= byteCount, UInt64(buffer.count) <= byteCount - offset else {
            throw ColdframeError(.invalidArgument, "\(buffer.count) bytes at \(offset) of a volume of \(byteCount)")
        }
        let range = Int(offset)..<Int(offset) + buffer.count
        let isFailing = state.withLock { state in
            state.readCount += 1
            state.ranges.append(range)
            return state.readCount == state.failing
        }
        if isFailing { throw ColdframeError(.io, "The volume could not be read at \(offset)") }
        bytes.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[range])) }
    }
}

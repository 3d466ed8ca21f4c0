import ColdframeKit
import LinuxSystem
import Synchronization

/// A file as a block driver with nothing around it: no locks, no options. For tests of formats.
public final class PlainFile: BlockDriver, Resizable, ChangeStamped, ExtentSource {
    public let driverName = "plain-test-file"
    public let isReadOnly: Bool
    public let threadModel = ThreadModel.parallel
    public let displayFilename: String
    private let file: Descriptor
    private let size: Atomic<UInt64>
    /// Calls of `flush`, for tests that promise how many there are.
    public let flushCount = Atomic<Int>(0)

    /// Opens `path`, which is made if `creates`.
    public init(path: String, isReadOnly: Bool = false, creates: Bool = false) throws {
        self.isReadOnly = isReadOnly
        displayFilename = path
        let flags: OpenFlags = isReadOnly ? .readOnly : creates ? [.readWrite, .create] : .readWrite
        file = try Descriptor.open(path, flags)
        size = Atomic(try file.status().byteCount)
    }

    public var descriptor: Int32 { file.raw }
    public var byteCount: UInt64 { size.load(ordering: .acquiring) }

    public func information() throws(ColdframeError) -> BlockInformation {
        let status = try io { () throws(SystemError) in try file.status() }
        return BlockInformation(allocatedByteCount: status.allocatedByteCount)
    }

    public func changeStamp() throws(ColdframeError) -> ChangeStamp? {
        let status = try io { () throws(SystemError) in try file.status() }
        return ChangeStamp(seconds: status.modificationSeconds, nanoseconds: status.modificationNanoseconds)
    }

    private func io<T>(_ body: () throws(SystemError) -> T) throws(ColdframeError) -> T {
        do { return try body() } catch { throw ColdframeError(error, displayFilename) }
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try checkRange(offset, buffer.count)
        _ = try io { () throws(SystemError) in try file.preadFull(into: buffer, at: offset) }
    }

    public func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try checkRange(offset, buffer.count)
        try io { () throws(SystemError) in try file.pwriteAll(buffer, at: offset) }
    }

    /// The contract that a format must keep towards its file.
    private func checkRange(_ offset: UInt64, _ byteCount: Int) throws(ColdframeError) {
        let size = self.byteCount
        guard offset <= size, UInt64(byteCount) <= size - offset else {
            throw ColdframeError(
                .invalidArgument, "Request for \(byteCount) bytes at \(offset) of a file of \(size) bytes")
        }
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try io { () throws(SystemError) in
            do throws(SystemError) {
                try file.allocate(mode: .zeroRangeKeepingSize, offset: offset, byteCount: byteCount)
            } catch  where error.errno == Errno.notSupported {
                // A file system in memory: a hole reads as zeros, and is reserved again.
                try file.allocate(mode: .punchHole, offset: offset, byteCount: byteCount)
                try file.allocate(mode: .reserve, offset: offset, byteCount: byteCount)
            }
        }
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try io { () throws(SystemError) in
            try file.allocate(mode: .punchHole, offset: offset, byteCount: byteCount)
        }
    }

    public func flush() throws(ColdframeError) {
        flushCount.add(1, ordering: .relaxed)
        try io { () throws(SystemError) in try file.synchronizeData() }
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        let end = offset + byteCount
        var extents: [Extent] = []
        while extents.count < limit, let start = extents.isEmpty ? offset : extents.last?.end, start < end {
            let data = try io { () throws(SystemError) in try file.seekData(from: start) } ?? end
            if data > start {
                extents.append(Extent(offset: start, byteCount: min(data, end) - start, kind: .zero(allocated: false)))
            } else {
                let hole = try io { () throws(SystemError) in try file.seekHole(from: start) } ?? end
                extents.append(
                    Extent(
                        offset: start, byteCount: min(hole, end) - start,
                        kind: .data(source: self, hostOffset: start)))
            }
        }
        return extents
    }

    public func resize(toByteCount: UInt64) throws(ColdframeError) {
        try io { () throws(SystemError) in try file.truncate(toByteCount: toByteCount) }
        size.store(toByteCount, ordering: .releasing)
    }

    public func close() throws(ColdframeError) { file.close() }
}

import BlockCopying
import ColdframeKit
import LinuxSystem

/// An open `blkverify` filter: every write goes to both nodes, every read comes from both and is compared. Any number of threads.
///
/// A request reserves its range. So the two nodes are read between the same two writes, and two writes of the same place come to
/// both in the same order.
final class BlkverifyDriver: BlockDriver, Growable, Filtering {
    /// What is compared at a time, so that a read takes no more memory than this beside its own.
    private static let pieceByteCount = 256 << 10

    let driverName = "blkverify"
    let threadModel = ThreadModel.parallel
    private let name: String
    private let test: BlockNode
    private let raw: BlockNode
    private let wasOpenedReadOnly: Bool
    private let log: LimitedLog
    private let reservations = RangeReservations()
    private let buffers = CopyBuffers(byteCount: BlkverifyDriver.pieceByteCount)

    init(name: String, test: BlockNode, raw: BlockNode, isReadOnly: Bool, log: LimitedLog) {
        self.name = name
        self.test = test
        self.raw = raw
        wasOpenedReadOnly = isReadOnly
        self.log = log
    }

    /// Both show the disk; this one is QEMU's choice.
    var shown: BlockNode { raw }
    var byteCount: UInt64 { test.byteCount }
    var isReadOnly: Bool { wasOpenedReadOnly || test.isReadOnly || raw.isReadOnly }
    var displayFilename: String { "blkverify:\(raw.driver.displayFilename):\(test.driver.displayFilename)" }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    // MARK: Reading

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let range = offset..<offset + UInt64(buffer.count)
        reservations.reserve(range)
        defer { reservations.release(range) }
        var difference: Int?
        try both("read", range) { () throws(ColdframeError) in
            try test.direct.read(into: buffer, at: offset)
        } raw: { () throws(ColdframeError) in
            difference = try firstDifference(from: UnsafeRawBufferPointer(buffer), at: offset)
        }
        if let difference {
            let position = offset + UInt64(difference)
            throw failure("read", range, "the contents differ from byte \(position) (sector \(position / 512)) on")
        }
    }

    /// Reads `raw`, all of it, and tells where it is another than `bytes`. If `test` could not be read, the answer says nothing.
    private func firstDifference(from bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(ColdframeError) -> Int? {
        try buffers.with { (memory) throws(ColdframeError) in
            var difference: Int?
            var done = 0
            while done < bytes.count {
                let count = min(buffers.byteCount, bytes.count - done)
                let piece = UnsafeMutableRawBufferPointer(start: memory, count: count)
                try raw.direct.read(into: piece, at: offset + UInt64(done))
                if difference == nil {
                    difference = UnsafeRawBufferPointer(piece).firstDifference(
                        from: UnsafeRawBufferPointer(rebasing: bytes[done..<done + count])
                    ).map { done + $0 }
                }
                done += count
            }
            return difference
        }
    }

    // MARK: Writing

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let range = offset..<offset + UInt64(buffer.count)
        reservations.reserve(range)
        defer { reservations.release(range) }
        try both("write", range) { () throws(ColdframeError) in
            try test.direct.write(buffer, at: offset, flags: flags)
        } raw: { () throws(ColdframeError) in
            try raw.direct.write(buffer, at: offset, flags: flags)
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        if flags.contains(.noFallback) {
            // One could refuse when the other has done it.
            throw ColdframeError(
                .unsupported, SystemError.text(errno: Errno.notSupported), errno: Errno.notSupported)
        }
        let range = offset..<offset + byteCount
        reservations.reserve(range)
        defer { reservations.release(range) }
        try both("write", range) { () throws(ColdframeError) in
            try test.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        } raw: { () throws(ColdframeError) in
            try raw.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
    }

    /// What is discarded may read as anything, and so in each node as something else: it stays.
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}

    func flush() throws(ColdframeError) {
        // QEMU flushes `test` only. After a power loss the two would differ where nothing was wrong.
        try both("flush", 0..<0) { () throws(ColdframeError) in
            try test.direct.flush()
        } raw: { () throws(ColdframeError) in
            try raw.direct.flush()
        }
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try agreedExtents(of: [test, raw], at: offset, byteCount: byteCount, limit: limit)
    }

    // MARK: Size

    /// `raw` first, which may be the larger of the two.
    func grow(toByteCount newSize: UInt64) throws(ColdframeError) {
        for node in [raw, test] where node.byteCount < newSize {
            guard let driver = node.driver as? any Resizable else {
                throw ColdframeError(.unsupported, "Node '\(node.name)' has a fixed size", errno: Errno.noSpace)
            }
            try driver.resize(toByteCount: newSize)
        }
    }

    // MARK: Comparing

    /// Does a request to both nodes, to the second also if the first fails. They must end alike: in success, or in the same error,
    /// which is thrown.
    private func both(
        _ operation: String, _ range: Range<UInt64>, test onTest: () throws(ColdframeError) -> Void,
        raw onRaw: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        guard range.upperBound <= raw.byteCount else {
            throw failure(operation, range, "node '\(raw.name)' has only \(raw.byteCount) bytes by now")
        }
        let testError = Self.error(of: onTest)
        let rawError = Self.error(of: onRaw)
        guard testError?.errno == rawError?.errno else {
            throw failure(
                operation, range,
                "'test' ends with \(testError.map { "'\($0)'" } ?? "success"), 'raw' with "
                    + "\(rawError.map { "'\($0)'" } ?? "success")")
        }
        if let testError { throw testError }
    }

    private static func error(of body: () throws(ColdframeError) -> Void) -> ColdframeError? {
        do throws(ColdframeError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    /// For the log and the user: where QEMU would end, the request fails, and the agent goes on.
    private func failure(_ operation: String, _ range: Range<UInt64>, _ what: String) -> ColdframeError {
        let place =
            range.isEmpty ? "" : " of \(range.count) bytes at \(range.lowerBound) (sector \(range.lowerBound / 512))"
        let text = "blkverify '\(name)': \(operation)\(place): \(what)"
        log.error(text)
        return ColdframeError(.io, text)
    }
}

import ColdframeKit

/// Passes everything on and records what changed the image, so that a test can build the file as a crash would have
/// left it: every prefix, and every choice of the calls between two flushes.
public final class RecordingDriver: BlockDriver, Resizable, ChangeStamped {
    public enum Call: Sendable {
        case write(offset: UInt64, bytes: [UInt8])
        case zero(offset: UInt64, byteCount: UInt64)
        case resize(byteCount: UInt64)
        case flush
    }

    private let inner: any BlockDriver & Resizable
    private let file: String
    private let log: CallLog

    /// - Parameter log: shared by the drivers of an image that has several files, told apart by `file`.
    public init(_ inner: any BlockDriver & Resizable, file: String = "image", log: CallLog = CallLog()) {
        self.inner = inner
        self.file = file
        self.log = log
    }

    /// What has been recorded since the beginning.
    public var calls: [Call] { log.entries.filter { $0.file == file }.map(\.call) }

    /// The bytes of the file at `path` before the first recorded call, `base`, after `calls` were applied in order.
    public static func replay(_ calls: some Sequence<Call>, on base: [UInt8]) -> [UInt8] {
        var bytes = base
        func reach(_ end: Int) {
            if bytes.count < end { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
        }
        for call in calls {
            switch call {
            case .write(let offset, let data):
                reach(Int(offset) + data.count)
                bytes.replaceSubrange(Int(offset)..<Int(offset) + data.count, with: data)
            case .zero(let offset, let byteCount):
                reach(Int(offset + byteCount))
                bytes.replaceSubrange(
                    Int(offset)..<Int(offset + byteCount), with: [UInt8](repeating: 0, count: Int(byteCount)))
            case .resize(let byteCount):
                if bytes.count > Int(byteCount) { bytes.removeLast(bytes.count - Int(byteCount)) }
                reach(Int(byteCount))
            case .flush: break
            }
        }
        return bytes
    }

    private func record(_ call: Call) { log.append(file, call) }

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
        try inner.write(buffer, at: offset, flags: flags)
        record(.write(offset: offset, bytes: Array(buffer)))
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try inner.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        record(.zero(offset: offset, byteCount: byteCount))
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try inner.discard(at: offset, byteCount: byteCount)
        record(.zero(offset: offset, byteCount: byteCount))
    }

    public func flush() throws(ColdframeError) {
        try inner.flush()
        record(.flush)
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try inner.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    public func resize(toByteCount: UInt64) throws(ColdframeError) {
        try inner.resize(toByteCount: toByteCount)
        record(.resize(byteCount: toByteCount))
    }

    public func changeStamp() throws(ColdframeError) -> ChangeStamp? {
        try (inner as? any ChangeStamped)?.changeStamp()
    }

    public func close() throws(ColdframeError) { try inner.close() }
}

import QMPWire

/// An open image, protocol or filter: what a node of the graph does its I/O with.
///
/// **Threads.** Every data method is synchronous, may block, and is called on the thread that received the request:
/// by several threads at once if `threadModel` is `.parallel`, by one at a time if `.serialized` (the kit then wraps
/// the driver). No data method may wait for the agent's actor.
///
/// **Bounds.** Callers (`BlockNode`) guarantee that a range lies within `byteCount` and that nothing is written to a
/// read-only driver; a driver may rely on it. Offsets and lengths need no alignment.
///
/// **Durability.** When a write returns, the data and the metadata that reaches it are in the kernel (they survive the
/// death of this process); when a flush returns, every write that returned before the flush began survives power loss.
public protocol BlockDriver: AnyObject, Sendable {
    /// QAPI's name of the driver, as in `blockdev-add`.
    var driverName: String { get }
    /// Size of the virtual disk in bytes.
    var byteCount: UInt64 { get }
    var isReadOnly: Bool { get }
    var threadModel: ThreadModel { get }
    /// What `query-named-block-nodes` reports as `file`: the file behind this driver, or a `json:` description.
    var displayFilename: String { get }
    /// Size of the clusters that the disk lies in, in bytes; nil, the default, for drivers that know none.
    var clusterByteCount: UInt32? { get }
    /// Allocated size and format-specific information; may do I/O.
    func information() throws(ColdframeError) -> BlockInformation

    /// Fills `buffer` from the disk at `offset`. Unallocated areas read as zeros.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError)
    /// Writes `buffer` at `offset`. With `.forceUnitAccess` it returns after the data is on stable storage.
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError)
    /// Makes the range read as zeros. With `.mayUnmap` the space may be given back.
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError)
    /// The guest no longer needs the range. A hint: it may do nothing.
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError)
    /// Makes all writes that have returned durable.
    func flush() throws(ColdframeError)
    /// Describes the range from `offset` on in order, without gaps, adjacent equal areas merged. At least one extent,
    /// at most `limit`; the last may end before the range does (then ask again from there), never after it.
    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent]
    /// Flushes and gives up files and locks. Called once, when no request is in flight; the driver is dead afterwards.
    func close() throws(ColdframeError)
}

extension BlockDriver {
    public var clusterByteCount: UInt32? { nil }
}

/// How many threads may be in a driver's data methods at once.
public enum ThreadModel: Sendable {
    /// One at a time. Always correct.
    case serialized
    /// Any number.
    case parallel
}

/// Options of a write.
public struct WriteFlags: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Stable storage before the return (FUA).
    public static let forceUnitAccess = WriteFlags(rawValue: 1)
    /// Zeroing may free the space.
    public static let mayUnmap = WriteFlags(rawValue: 2)
    /// Zeroing fails with EOPNOTSUPP rather than write zeros slowly.
    public static let noFallback = WriteFlags(rawValue: 4)
    /// What is written is what the disk shows already (copy-on-read): no dirty bitmap and no threshold takes notice.
    public static let unchanged = WriteFlags(rawValue: 8)
}

/// What `query-named-block-nodes` and `query-block` want to know beyond name and size (`ImageInfo`).
public struct BlockInformation: Sendable {
    /// Bytes that the image takes on its host.
    public var allocatedByteCount: UInt64?
    public var isDirty: Bool
    public var backingFilename: String?
    public var backingFormat: String?
    /// The branch of `ImageInfoSpecific` as JSON, or nil.
    public var formatSpecific: (type: String, data: JSONObject)?

    public init(
        allocatedByteCount: UInt64? = nil, isDirty: Bool = false,
        backingFilename: String? = nil, backingFormat: String? = nil,
        formatSpecific: (type: String, data: JSONObject)? = nil
    ) {
        self.allocatedByteCount = allocatedByteCount
        self.isDirty = isDirty
        self.backingFilename = backingFilename
        self.backingFormat = backingFormat
        self.formatSpecific = formatSpecific
    }
}

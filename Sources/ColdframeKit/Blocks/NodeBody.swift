import LinuxSystem
import Synchronization

/// What stands under a node's name: its driver and what the node itself adds to it, whoever uses it.
///
/// Writes are noted in the node's dirty bitmaps after they happened, so that whoever clears a bit and then reads sees the
/// write, and also if they failed, since part of them may be there. Calls are serialised if the driver asks for it.
public final class NodeBody: Sendable {
    public let name: String
    public let driver: any BlockDriver
    public let bitmaps: NodeBitmaps
    public let watch: NodeWatch
    private let request: RequestOptions
    private let serial: PlainMutex?
    /// The driver, where it wants to be told of steps; found once, since a cast costs more than a request should.
    let listener: (any StepListening)?
    /// The same for those who ask what is allocated.
    private let layer: (any Layered)?
    private let filter: (any Filtering)?

    /// What the node makes of its users' requests before the driver sees them.
    public struct RequestOptions: Sendable {
        /// Discards end here (`discard: ignore`).
        public var ignoresDiscards: Bool
        public var zeroDetection: ZeroDetection
        /// Nobody writes through the node, whatever its driver could.
        public var isReadOnly: Bool
        public init(ignoresDiscards: Bool = false, zeroDetection: ZeroDetection = .off, isReadOnly: Bool = false) {
            self.ignoresDiscards = ignoresDiscards
            self.zeroDetection = zeroDetection
            self.isReadOnly = isReadOnly
        }
    }

    public init(name: String, driver: any BlockDriver, request: RequestOptions = RequestOptions()) {
        self.name = name
        self.driver = driver
        self.request = request
        bitmaps = NodeBitmaps()
        watch = NodeWatch()
        serial = driver.threadModel == .serialized ? PlainMutex() : nil
        listener = driver as? any StepListening
        layer = driver as? any Layered
        filter = driver as? any Filtering
    }

    /// The same node with another driver, which shows the same disk.
    public init(_ old: NodeBody, driver: any BlockDriver, request: RequestOptions) {
        name = old.name
        bitmaps = old.bitmaps
        watch = old.watch
        self.driver = driver
        self.request = request
        serial = driver.threadModel == .serialized ? PlainMutex() : nil
        listener = driver as? any StepListening
        layer = driver as? any Layered
        filter = driver as? any Filtering
    }

    var isReadOnly: Bool { request.isReadOnly || driver.isReadOnly }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        serial?.lock()
        defer { serial?.unlock() }
        try driver.read(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        if !flags.contains(.unchanged) { watch.willWrite(at: offset, byteCount: UInt64(buffer.count)) }
        serial?.lock()
        defer { serial?.unlock() }
        defer { note(offset, UInt64(buffer.count), flags) }
        if request.zeroDetection != .off, ZeroDetection.isZero(buffer) {
            try driver.writeZeroes(
                at: offset, byteCount: UInt64(buffer.count), flags: flags.union(request.zeroDetection.flags))
        } else {
            try driver.write(buffer, at: offset, flags: flags)
        }
    }

    func writeCompressed(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        guard let driver = driver as? any CompressedWriting else {
            throw ColdframeError(.unsupported, "Node '\(name)' does not store data compressed")
        }
        watch.willWrite(at: offset, byteCount: UInt64(buffer.count))
        serial?.lock()
        defer { serial?.unlock() }
        defer { bitmaps.noteWrite(at: offset, byteCount: UInt64(buffer.count)) }
        try driver.writeCompressed(buffer, at: offset)
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        if !flags.contains(.unchanged) { watch.willWrite(at: offset, byteCount: byteCount) }
        serial?.lock()
        defer { serial?.unlock() }
        defer { note(offset, byteCount, flags) }
        try driver.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    @inline(__always)
    private func note(_ offset: UInt64, _ byteCount: UInt64, _ flags: WriteFlags) {
        if !flags.contains(.unchanged) { bitmaps.noteWrite(at: offset, byteCount: byteCount) }
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        if request.ignoresDiscards { return }
        serial?.lock()
        defer { serial?.unlock() }
        defer { bitmaps.noteWrite(at: offset, byteCount: byteCount) }
        try driver.discard(at: offset, byteCount: byteCount)
    }

    func flush() throws(ColdframeError) {
        serial?.lock()
        defer { serial?.unlock() }
        try driver.flush()
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        serial?.lock()
        defer { serial?.unlock() }
        return try driver.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    func allocation(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (isAllocated: Bool, byteCount: UInt64) {
        if let filter { return try filter.shown.direct.allocation(at: offset, byteCount: byteCount) }
        // An image that is no layer holds all that it shows.
        guard let layer else { return (true, byteCount) }
        serial?.lock()
        defer { serial?.unlock() }
        return try layer.allocation(at: offset, byteCount: byteCount)
    }
}

/// Watches how high a node is written. Any thread; costs two loads where nothing is new.
public final class NodeWatch: Sendable {
    private let highest = Atomic<UInt64>(0)
    private let threshold = Atomic<UInt64>(0)
    private let action = Locked<(@Sendable (_ exceededBy: UInt64, _ threshold: UInt64) -> Void)?>(nil)

    init() {}

    /// Where the highest write so far ended; 0 if there was none.
    public var highestWriteEnd: UInt64 { highest.load(ordering: .relaxed) }

    /// 0 if nobody looks.
    public var thresholdOffset: UInt64 { threshold.load(ordering: .relaxed) }

    /// Calls `action` once, on the writer's thread, when a write is about to end behind `offset`; 0 for never.
    public func setThreshold(
        _ offset: UInt64, _ action: @escaping @Sendable (_ exceededBy: UInt64, _ threshold: UInt64) -> Void
    ) {
        self.action.withLock { $0 = action }
        threshold.store(offset, ordering: .releasing)
    }

    @inline(__always)
    func willWrite(at offset: UInt64, byteCount: UInt64) {
        let end = offset + byteCount
        if end > highest.load(ordering: .relaxed) { highest.max(end, ordering: .relaxed) }
        let limit = threshold.load(ordering: .acquiring)
        if limit > 0, end > limit { exceed(end, limit) }
    }

    private func exceed(_ end: UInt64, _ limit: UInt64) {
        // Whoever resets it is the one who tells.
        guard threshold.compareExchange(expected: limit, desired: 0, ordering: .acquiringAndReleasing).exchanged
        else { return }
        action.withLock { $0 }?(end - limit, limit)
    }
}

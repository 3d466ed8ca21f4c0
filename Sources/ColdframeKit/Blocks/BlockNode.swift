import LinuxSystem
import Synchronization

/// A node of the graph as one of its users sees it: a parent's child, an export's or a job's disk. Each user has one of
/// its own; when the graph changes under it, it shows another node from then on.
///
/// Exports and jobs call the data methods here: they pass the gate, and check bounds and read-only inside it (a drained
/// node may change its size). A driver does I/O on its children through `direct`, since the request has passed a gate
/// above.
public final class BlockNode: Sendable {
    public let gate = RequestGate()
    /// Keeps the body that `pointer` points to alive.
    private let owner: Locked<NodeBody>
    /// Read without a lock by requests: it changes only while every gate above is closed and nobody is inside.
    private let pointer: Atomic<UInt>
    /// Its user may not write, though the node can be written.
    private let isParked = Atomic<Bool>(false)

    public init(_ body: NodeBody) {
        owner = Locked(body)
        pointer = Atomic(Self.address(of: body))
    }

    public convenience init(name: String, driver: any BlockDriver) {
        self.init(NodeBody(name: name, driver: driver))
    }

    /// The node behind it now. Any thread, inside a gate or not.
    public var body: NodeBody { owner.withLock { $0 } }
    public var name: String { body.name }
    public var driver: any BlockDriver { body.driver }
    /// Dirty bitmaps that the node's writes are noted in.
    public var bitmaps: NodeBitmaps { body.bitmaps }
    /// The same I/O behind the gate.
    public var direct: DirectIO { DirectIO(self) }

    public var byteCount: UInt64 { driver.byteCount }
    public var isReadOnly: Bool { body.isReadOnly }

    /// Puts it on another node. Only while the gates of all who reach it are closed and nobody is inside.
    public func retarget(to body: NodeBody) {
        owner.withLock { owner in
            pointer.store(Self.address(of: body), ordering: .releasing)
            owner = body
        }
    }

    /// Lets its user read only, or write again: a disk that is handed from one user to the next. Changes only while the gates
    /// of all who reach the node are closed and nobody is inside, so that a request that waits there meets the new state.
    public func setParked(_ isParked: Bool) {
        self.isParked.store(isParked, ordering: .releasing)
    }

    private static func address(of body: NodeBody) -> UInt {
        UInt(bitPattern: Unmanaged.passUnretained(body).toOpaque())
    }

    /// For a request that has passed a gate: the body cannot change under it.
    @inline(__always)
    func withBody<T>(_ action: (NodeBody) throws(ColdframeError) -> T) throws(ColdframeError) -> T {
        guard let address = UnsafeRawPointer(bitPattern: pointer.load(ordering: .acquiring)) else {
            preconditionFailure("a node's address is never 0")
        }
        // Safe: `owner` holds what `pointer` points to, and both change only while no request is inside.
        return try action(Unmanaged<NodeBody>.fromOpaque(address).takeUnretainedValue())
    }

    @inline(__always)
    func withListener(_ action: (any StepListening) -> Void) {
        guard let address = UnsafeRawPointer(bitPattern: pointer.load(ordering: .acquiring)) else { return }
        // Safe: as in `withBody`.
        if let listener = Unmanaged<NodeBody>.fromOpaque(address).takeUnretainedValue().listener { action(listener) }
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try checkRange(offset, UInt64(buffer.count))
        try direct.read(into: buffer, at: offset)
    }

    public func write(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags = []
    ) throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try checkWritable(offset, UInt64(buffer.count))
        try direct.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags = []) throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try checkWritable(offset, byteCount)
        try direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try checkWritable(offset, byteCount)
        try direct.discard(at: offset, byteCount: byteCount)
    }

    public func flush() throws(ColdframeError) {
        gate.enter()
        defer { gate.leave() }
        try direct.flush()
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        gate.enter()
        defer { gate.leave() }
        try checkRange(offset, byteCount)
        return try direct.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    private func checkRange(_ offset: UInt64, _ byteCount: UInt64) throws(ColdframeError) {
        let size = try withBody { (body) throws(ColdframeError) in body.driver.byteCount }
        guard offset <= size, byteCount <= size - offset else {
            throw ColdframeError(
                .invalidArgument,
                "Request for \(byteCount) bytes at \(offset) lies outside node '\(name)' of \(size) bytes")
        }
    }

    private func checkWritable(_ offset: UInt64, _ byteCount: UInt64) throws(ColdframeError) {
        if try withBody({ (body) throws(ColdframeError) in body.isReadOnly }) {
            throw ColdframeError(.permission, "Node '\(name)' is read-only")
        }
        guard !isParked.load(ordering: .acquiring) else {
            throw ColdframeError(.permission, "Node '\(name)' belongs to another process of the guest")
        }
        try checkRange(offset, byteCount)
    }
}

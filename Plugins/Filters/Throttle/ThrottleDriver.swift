import ColdframeKit
import QAPI

/// Puts `throttle` above a node.
struct ThrottleFactory: BlockDriverFactory {
    let driverName = "throttle"
    let isFormat = false
    let isFilter = true

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        guard let branch = options.branch as? BlockdevOptionsThrottle else {
            throw ColdframeError(.invalidArgument, "Driver 'throttle' was given options of another driver")
        }
        let child = try await context.child("file", branch.file, role: .filtered)
        guard let group = context.object(id: branch.throttleGroup) as? ThrottleGroup else {
            throw ColdframeError(.notFound, "Throttle group '\(branch.throttleGroup)' does not exist")
        }
        return ThrottleDriver(child: child, queue: group.queue)
    }
}

/// Shows a node, with its requests held back. Flushes and questions pass freely, as in QEMU.
final class ThrottleDriver: BlockDriver, Resizable, Delaying, Filtering {
    let driverName = "throttle"
    let threadModel = ThreadModel.parallel
    private let child: BlockNode
    private let queue: ThrottleQueue
    private let member: ThrottleQueue.Member

    init(child: BlockNode, queue: ThrottleQueue) {
        self.child = child
        self.queue = queue
        member = queue.join()
    }

    var shown: BlockNode { child }
    var byteCount: UInt64 { child.byteCount }
    var isReadOnly: Bool { child.isReadOnly }
    var displayFilename: String { child.driver.displayFilename }
    func information() throws(ColdframeError) -> BlockInformation { try child.driver.information() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        queue.pass(member, .read, byteCount: UInt64(buffer.count))
        try child.direct.read(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        queue.pass(member, .write, byteCount: UInt64(buffer.count))
        try child.direct.write(buffer, at: offset, flags: flags)
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        queue.pass(member, .write, byteCount: byteCount)
        try child.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        queue.pass(member, .write, byteCount: byteCount)
        try child.direct.discard(at: offset, byteCount: byteCount)
    }

    func flush() throws(ColdframeError) { try child.direct.flush() }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        var list = ExtentList(limit: limit)
        for extent in try child.direct.extents(at: offset, byteCount: byteCount, limit: limit) {
            // What is read straight from the file would not be held back.
            let kind: Extent.Kind = if case .zero = extent.kind { extent.kind } else { .opaque }
            list.append(Extent(offset: extent.offset, byteCount: extent.byteCount, kind: kind))
        }
        return list.extents
    }

    func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        guard let driver = child.driver as? any Resizable else {
            throw ColdframeError(.unsupported, "Image format driver does not support resize")
        }
        try driver.resize(toByteCount: byteCount)
    }

    func grow(toByteCount byteCount: UInt64) throws(ColdframeError) {
        guard let driver = child.driver as? any Resizable else { return try resize(toByteCount: byteCount) }
        try driver.grow(toByteCount: byteCount)
    }

    func beginRelease() { queue.beginRelease(member) }
    func endRelease() { queue.endRelease(member) }

    /// The child belongs to the graph, which closes it.
    func close() throws(ColdframeError) { queue.leave(member) }
}

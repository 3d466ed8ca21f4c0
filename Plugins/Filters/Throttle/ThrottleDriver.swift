import ColdframeKit
import QAPI

/// Puts `throttle` above a node.
struct ThrottleFactory: BlockDriverFactory {
    let driverName = "throttle"
    let isFormat = false
    let isFilter = true
    let reopening = ReopeningWay.anotherDriver

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsThrottle = try own(options.branch)
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
    let shown: BlockNode
    private let queue: ThrottleQueue
    private let member: ThrottleQueue.Member

    init(child: BlockNode, queue: ThrottleQueue) {
        shown = child
        self.queue = queue
        member = queue.join()
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        queue.pass(member, .read, byteCount: UInt64(buffer.count))
        try shown.direct.read(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        queue.pass(member, .write, byteCount: UInt64(buffer.count))
        try shown.direct.write(buffer, at: offset, flags: flags)
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        queue.pass(member, .write, byteCount: byteCount)
        try shown.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        queue.pass(member, .write, byteCount: byteCount)
        try shown.direct.discard(at: offset, byteCount: byteCount)
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        // What is read straight from the file would not be held back.
        try extentsWithoutPlaces(at: offset, byteCount: byteCount, limit: limit)
    }

    func beginRelease() { queue.beginRelease(member) }
    func endRelease() { queue.endRelease(member) }

    func close() throws(ColdframeError) { queue.leave(member) }
}

import ColdframeKit
import QAPI

/// Puts `snapshot-access` above a filter that keeps a moment.
struct SnapshotAccessFactory: BlockDriverFactory {
    let driverName = "snapshot-access"
    let isFormat = false

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsSnapshotAccess = try own(options.branch)
        let child = try await context.child("file", branch.file, role: .observed)
        guard child.driver is any MomentReadable else {
            throw ColdframeError(
                .unsupported,
                "Node '\(child.name)' keeps no earlier moment: snapshot-access needs a copy-before-write filter below")
        }
        return SnapshotAccessDriver(child: child)
    }
}

/// The disk of one moment. It cannot be written; a discard says that a range is not needed any more.
final class SnapshotAccessDriver: BlockDriver {
    let driverName = "snapshot-access"
    let threadModel = ThreadModel.parallel
    /// As in QEMU: a reader may discard, so the node itself is no read-only one.
    let isReadOnly = false
    private let child: BlockNode

    init(child: BlockNode) { self.child = child }

    var byteCount: UInt64 { child.byteCount }
    var displayFilename: String { child.driver.displayFilename }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    private func moment() throws(ColdframeError) -> any MomentReadable {
        guard let driver = child.driver as? any MomentReadable else {
            throw ColdframeError(.io, "Node '\(child.name)' keeps no earlier moment any more")
        }
        return driver
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try moment().readMoment(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        throw ColdframeError(.unsupported, "What a disk was cannot be written")
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        throw ColdframeError(.unsupported, "What a disk was cannot be written")
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try moment().discardMoment(at: offset, byteCount: byteCount)
    }

    func flush() throws(ColdframeError) {}

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try moment().momentExtents(at: offset, byteCount: byteCount, limit: limit)
    }

    /// The child belongs to the graph, which closes it.
    func close() throws(ColdframeError) {}
}

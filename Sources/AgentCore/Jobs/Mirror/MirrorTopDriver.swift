import ColdframeKit

/// The filter above a mirror's source: passes everything on, and in write-blocking mode writes to the target as well.
final class MirrorTopDriver: BlockDriver, Filtering {
    let driverName: String
    let threadModel = ThreadModel.parallel
    private let source: BlockNode
    /// Set in write-blocking mode.
    private let blocking: (copy: MirrorCopy, target: BlockNode)?

    init(_ name: String, source: BlockNode, blocking: (copy: MirrorCopy, target: BlockNode)?) {
        driverName = name
        self.source = source
        self.blocking = blocking
    }

    var shown: BlockNode { source }
    var byteCount: UInt64 { source.byteCount }
    var isReadOnly: Bool { source.isReadOnly }
    var displayFilename: String { source.driver.displayFilename }
    func information() throws(ColdframeError) -> BlockInformation { try source.driver.information() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try source.direct.read(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        guard let (copy, target) = blocking else { return try source.direct.write(buffer, at: offset, flags: flags) }
        try copy.writeBoth(at: offset, byteCount: UInt64(buffer.count)) { () throws(ColdframeError) in
            try source.direct.write(buffer, at: offset, flags: flags)
        } target: { () throws(ColdframeError) in
            try target.direct.write(buffer, at: offset, flags: flags)
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        guard let (copy, target) = blocking else {
            return try source.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
        try copy.writeBoth(at: offset, byteCount: byteCount) { () throws(ColdframeError) in
            try source.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        } target: { () throws(ColdframeError) in
            try target.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        // What a discarded range reads as is each image's own choice: the bitmap notes it, and the job copies it.
        try source.direct.discard(at: offset, byteCount: byteCount)
    }

    func flush() throws(ColdframeError) { try source.direct.flush() }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try source.direct.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    /// The child belongs to the graph, which closes it.
    func close() throws(ColdframeError) {}
}

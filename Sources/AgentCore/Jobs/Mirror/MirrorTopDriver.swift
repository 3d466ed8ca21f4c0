import ColdframeKit

/// The filter above a mirror's source: passes everything on, and in write-blocking mode writes to the target as well.
final class MirrorTopDriver: BlockDriver, Filtering {
    let driverName: String
    let threadModel = ThreadModel.parallel
    let shown: BlockNode
    /// Set in write-blocking mode. A discard goes to the source alone: what its range reads as is each image's own choice; the
    /// bitmap notes it, and the job copies it.
    private let blocking: (copy: MirrorCopy, target: BlockNode)?

    init(_ name: String, source: BlockNode, blocking: (copy: MirrorCopy, target: BlockNode)?) {
        driverName = name
        shown = source
        self.blocking = blocking
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        guard let (copy, target) = blocking else { return try shown.direct.write(buffer, at: offset, flags: flags) }
        try copy.writeBoth(at: offset, byteCount: UInt64(buffer.count)) { () throws(ColdframeError) in
            try shown.direct.write(buffer, at: offset, flags: flags)
        } target: { () throws(ColdframeError) in
            try target.direct.write(buffer, at: offset, flags: flags)
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        guard let (copy, target) = blocking else {
            return try shown.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
        try copy.writeBoth(at: offset, byteCount: byteCount) { () throws(ColdframeError) in
            try shown.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        } target: { () throws(ColdframeError) in
            try target.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
    }
}

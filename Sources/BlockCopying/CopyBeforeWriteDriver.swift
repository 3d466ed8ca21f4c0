import ColdframeKit
import LinuxSystem

/// What becomes of a guest's write when the old data cannot be copied (`OnCbwError`).
public enum CopyErrorPolicy: Sendable {
    /// It fails: the copy stays whole.
    case breakGuestWrite
    /// It goes on: the copy is broken.
    case breakSnapshot
}

/// The filter `copy-before-write`: shows its source; whatever is overwritten through it is in the target before.
public final class CopyBeforeWriteDriver: BlockDriver, MomentReadable, Filtering {
    public let driverName = "copy-before-write"
    public let threadModel = ThreadModel.parallel
    public let copy: BlockCopy
    private let policy: CopyErrorPolicy

    public init(copy: BlockCopy, policy: CopyErrorPolicy = .breakGuestWrite) {
        self.copy = copy
        self.policy = policy
    }

    public var shown: BlockNode { copy.source }

    public func write(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags
    ) throws(ColdframeError) {
        try saveOld(offset, UInt64(buffer.count), flags)
        try shown.direct.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try saveOld(offset, byteCount, flags)
        try shown.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try saveOld(offset, byteCount, [])
        try shown.direct.discard(at: offset, byteCount: byteCount)
    }

    private func saveOld(_ offset: UInt64, _ byteCount: UInt64, _ flags: WriteFlags) throws(ColdframeError) {
        guard byteCount > 0, !flags.contains(.unchanged) else { return }
        do { try copy.prepareForWrite(offset..<offset + byteCount) } catch {
            switch policy {
            case .breakGuestWrite: throw error.error
            case .breakSnapshot: copy.breakOff(error.error)
            }
        }
    }

    // MARK: The moment

    public func readMoment(
        into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(ColdframeError) {
        try check(offset..<offset + UInt64(buffer.count))
        try copy.read(offset..<offset + UInt64(buffer.count)) { (node, piece) throws(ColdframeError) in
            let start = Int(piece.lowerBound - offset)
            let part = buffer[start..<start + Int(piece.upperBound - piece.lowerBound)]
            try node.direct.read(into: UnsafeMutableRawBufferPointer(rebasing: part), at: piece.lowerBound)
        }
        // It may have broken while it was read.
        try checkWhole()
    }

    public func momentExtents(
        at offset: UInt64, byteCount: UInt64, limit: Int
    ) throws(ColdframeError) -> [Extent] {
        try check(offset..<offset + byteCount)
        var extents: [Extent] = []
        try copy.read(offset..<offset + byteCount) { (node, piece) throws(ColdframeError) in
            guard extents.count < limit, extents.last.map({ $0.end == piece.lowerBound }) ?? true else { return }
            let found = try node.direct.extents(
                at: piece.lowerBound, byteCount: piece.upperBound - piece.lowerBound, limit: limit - extents.count)
            // Where data lies now is no promise: the next write moves it.
            for extent in found {
                let kind: Extent.Kind = if case .zero = extent.kind { extent.kind } else { .opaque }
                if let last = extents.last, last.kind == kind {
                    extents[extents.count - 1].byteCount += extent.byteCount
                } else {
                    extents.append(Extent(offset: extent.offset, byteCount: extent.byteCount, kind: kind))
                }
            }
        }
        return extents
    }

    public func discardMoment(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        copy.skip(offset..<offset + byteCount)
        try copy.target.direct.discard(at: offset, byteCount: byteCount)
    }

    private func check(_ range: Range<UInt64>) throws(ColdframeError) {
        try checkWhole()
        guard copy.keeps(range) else {
            throw ColdframeError(
                .permission, "The earlier disk is not kept there: it was discarded, or is outside the bitmap",
                errno: Errno.accessDenied)
        }
    }

    private func checkWhole() throws(ColdframeError) {
        if let breakage = copy.breakage { throw breakage }
    }
}

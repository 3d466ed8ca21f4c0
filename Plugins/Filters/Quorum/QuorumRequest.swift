import ColdframeKit

/// What all children of a quorum are asked for.
enum QuorumRequest: @unchecked Sendable {
    // Unchecked: the buffers are those of the thread that asks, which waits until no child uses them any more.

    /// Each child has a buffer of its own.
    case read([UnsafeMutableRawBufferPointer], at: UInt64)
    case write(UnsafeRawBufferPointer, at: UInt64, WriteFlags)
    case writeZeroes(Range<UInt64>, WriteFlags)
    case flush

    var range: Range<UInt64> {
        switch self {
        case .read(let buffers, let offset): offset..<offset + UInt64(buffers.first?.count ?? 0)
        case .write(let buffer, let offset, _): offset..<offset + UInt64(buffer.count)
        case .writeZeroes(let range, _): range
        case .flush: 0..<0
        }
    }

    func perform(on io: DirectIO, child index: Int) throws(ColdframeError) {
        switch self {
        case .read(let buffers, let offset): try io.read(into: buffers[index], at: offset)
        case .write(let buffer, let offset, let flags): try io.write(buffer, at: offset, flags: flags)
        case .writeZeroes(let range, let flags):
            try io.writeZeroes(at: range.lowerBound, byteCount: UInt64(range.count), flags: flags)
        case .flush: try io.flush()
        }
    }
}

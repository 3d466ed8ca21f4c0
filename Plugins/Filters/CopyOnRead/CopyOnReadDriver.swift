import BlockCopying
import ColdframeKit
import LinuxSystem

/// An open `copy-on-read` filter. Any number of threads.
///
/// Whoever copies reserves the clusters, and so does whoever writes: a copy holds what was there before it was written, and must
/// not come after a write of the same bytes.
final class CopyOnReadDriver: BlockDriver, Resizable, Filtering {
    /// The most that is copied at once; what is longer is copied in pieces.
    static let pieceByteCount: UInt64 = 1 << 20

    let driverName = "copy-on-read"
    let threadModel = ThreadModel.parallel
    let isReadOnly: Bool
    let shown: BlockNode
    /// The images below the one that is shown from which data is copied; nil for all.
    private let below: LayerAllocation?
    private let reservations = RangeReservations()
    private let buffers = CopyBuffers(byteCount: Int(pieceByteCount))

    init(_ file: BlockNode, below: LayerAllocation? = nil, isReadOnly: Bool = false) {
        shown = file
        self.below = below
        self.isReadOnly = isReadOnly
    }

    // MARK: Reading

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let end = offset + UInt64(buffer.count)
        // A node that cannot be written is only read.
        guard !shown.isReadOnly else { return try shown.direct.read(into: buffer, at: offset) }
        var position = offset
        while position < end {
            let (isCopied, byteCount) = try wish(at: position, byteCount: end - position)
            let piece = position..<position + byteCount
            let part = buffer.part(piece, from: offset)
            if isCopied {
                try copy(piece, into: part)
            } else {
                try shown.direct.read(into: part, at: position)
            }
            position = piece.upperBound
        }
    }

    /// Whether what is read at an offset is to be copied, and for how many bytes that holds.
    private func wish(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (isCopied: Bool, byteCount: UInt64) {
        let (isThere, run) = try shown.direct.allocation(at: offset, byteCount: byteCount)
        guard !isThere, let below else { return (!isThere, run) }
        let (isHeld, part) = try below.holds(at: offset, byteCount: run)
        return (isHeld, part)
    }

    /// Copies what the image has not of the clusters that a range touches, and reads the range.
    private func copy(
        _ range: Range<UInt64>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(ColdframeError) {
        let clusters = try clusters(of: range)
        reservations.reserve(clusters)
        defer { reservations.release(clusters) }
        var position = clusters.lowerBound
        while position < clusters.upperBound {
            // Behind the reservation: another reader may have copied it, or somebody written it.
            let (isThere, run) = try shown.direct.allocation(at: position, byteCount: clusters.upperBound - position)
            let piece = position..<position + (isThere ? run : min(run, Self.pieceByteCount))
            let wanted = piece.clamped(to: range)
            let part = wanted.isEmpty ? nil : buffer.part(wanted, from: range.lowerBound)
            if !isThere {
                try copyPiece(piece, reading: wanted, into: part)
            } else if let part {
                try shown.direct.read(into: part, at: wanted.lowerBound)
            }
            position = piece.upperBound
        }
    }

    private func copyPiece(
        _ piece: Range<UInt64>, reading wanted: Range<UInt64>, into part: UnsafeMutableRawBufferPointer?
    ) throws(ColdframeError) {
        // Not from the reader's memory, which may change meanwhile.
        try buffers.with { (memory) throws(ColdframeError) in
            let bytes = UnsafeMutableRawBufferPointer(start: memory, count: piece.count)
            try shown.direct.read(into: bytes, at: piece.lowerBound)
            if ZeroDetection.isZero(UnsafeRawBufferPointer(bytes)) {
                try shown.direct.writeZeroes(
                    at: piece.lowerBound, byteCount: UInt64(piece.count), flags: .unchanged)
            } else {
                try shown.direct.write(UnsafeRawBufferPointer(bytes), at: piece.lowerBound, flags: .unchanged)
            }
            part?.copyMemory(from: UnsafeRawBufferPointer(bytes.part(wanted, from: piece.lowerBound)))
        }
    }

    /// The clusters of the image below that a range touches, as much of them as the disk has.
    private func clusters(of range: Range<UInt64>) throws(ColdframeError) -> Range<UInt64> {
        let unit = UInt64(shown.driver.clusterByteCount ?? 1)
        let end = (range.upperBound + unit - 1) / unit * unit
        return range.lowerBound / unit * unit..<max(min(end, shown.byteCount), range.upperBound)
    }

    // MARK: Writing

    private func reserving(
        _ offset: UInt64, _ byteCount: UInt64, _ body: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        guard byteCount > 0 else { return try body() }
        let range = offset..<offset + byteCount
        reservations.reserve(range)
        defer { reservations.release(range) }
        try body()
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try reserving(offset, UInt64(buffer.count)) { () throws(ColdframeError) in
            try shown.direct.write(buffer, at: offset, flags: flags)
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try reserving(offset, byteCount) { () throws(ColdframeError) in
            try shown.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try reserving(offset, byteCount) { () throws(ColdframeError) in
            try shown.direct.discard(at: offset, byteCount: byteCount)
        }
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        // What is read straight from a file would not be copied.
        try extentsWithoutPlaces(at: offset, byteCount: byteCount, limit: limit)
    }
}

extension UnsafeMutableRawBufferPointer {
    /// The bytes of `range`, where the buffer begins at `start`.
    fileprivate func part(_ range: Range<UInt64>, from start: UInt64) -> UnsafeMutableRawBufferPointer {
        let bounds = Int(range.lowerBound - start)..<Int(range.upperBound - start)
        return UnsafeMutableRawBufferPointer(rebasing: self[bounds])
    }
}

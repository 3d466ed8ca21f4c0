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
    private let file: BlockNode
    /// The images below the one that is shown from which data is copied; nil for all.
    private let below: LayerAllocation?
    private let reservations = RangeReservations()
    private let buffers = CopyBuffers(byteCount: Int(pieceByteCount))
    private let cluster = Locked<(body: NodeBody, byteCount: UInt64)?>(nil)

    init(_ file: BlockNode, below: LayerAllocation? = nil, isReadOnly: Bool = false) {
        self.file = file
        self.below = below
        self.isReadOnly = isReadOnly
    }

    var shown: BlockNode { file }
    var byteCount: UInt64 { file.byteCount }
    var displayFilename: String { file.driver.displayFilename }
    func information() throws(ColdframeError) -> BlockInformation { try file.driver.information() }

    // MARK: Reading

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let end = offset + UInt64(buffer.count)
        // A node that cannot be written is only read.
        guard !file.isReadOnly else { return try file.direct.read(into: buffer, at: offset) }
        var position = offset
        while position < end {
            let (isCopied, byteCount) = try wish(at: position, byteCount: end - position)
            let piece = position..<position + byteCount
            let part = buffer.part(piece, from: offset)
            if isCopied {
                try copy(piece, into: part)
            } else {
                try file.direct.read(into: part, at: position)
            }
            position = piece.upperBound
        }
    }

    /// Whether what is read at an offset is to be copied, and for how many bytes that holds.
    private func wish(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (isCopied: Bool, byteCount: UInt64) {
        let (isThere, run) = try file.direct.allocation(at: offset, byteCount: byteCount)
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
            let (isThere, run) = try file.direct.allocation(at: position, byteCount: clusters.upperBound - position)
            let piece = position..<position + (isThere ? run : min(run, Self.pieceByteCount))
            let wanted = piece.clamped(to: range)
            let part = wanted.isEmpty ? nil : buffer.part(wanted, from: range.lowerBound)
            if !isThere {
                try copyPiece(piece, reading: wanted, into: part)
            } else if let part {
                try file.direct.read(into: part, at: wanted.lowerBound)
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
            try file.direct.read(into: bytes, at: piece.lowerBound)
            if ZeroDetection.isZero(UnsafeRawBufferPointer(bytes)) {
                try file.direct.writeZeroes(
                    at: piece.lowerBound, byteCount: UInt64(piece.count), flags: .unchanged)
            } else {
                try file.direct.write(UnsafeRawBufferPointer(bytes), at: piece.lowerBound, flags: .unchanged)
            }
            part?.copyMemory(from: UnsafeRawBufferPointer(bytes.part(wanted, from: piece.lowerBound)))
        }
    }

    /// The clusters of the image below that a range touches, as much of them as the disk has.
    private func clusters(of range: Range<UInt64>) throws(ColdframeError) -> Range<UInt64> {
        let unit = try clusterByteCount()
        let end = (range.upperBound + unit - 1) / unit * unit
        return range.lowerBound / unit * unit..<max(min(end, file.byteCount), range.upperBound)
    }

    /// Asked for once of each image: an overlay may come to lie above the one that was shown.
    private func clusterByteCount() throws(ColdframeError) -> UInt64 {
        let body = file.body
        if let known = cluster.withLock({ $0 }), known.body === body { return known.byteCount }
        let byteCount = UInt64(try body.driver.information().clusterByteCount ?? 0)
        cluster.withLock { $0 = (body, max(byteCount, 1)) }
        return max(byteCount, 1)
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
            try file.direct.write(buffer, at: offset, flags: flags)
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try reserving(offset, byteCount) { () throws(ColdframeError) in
            try file.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try reserving(offset, byteCount) { () throws(ColdframeError) in
            try file.direct.discard(at: offset, byteCount: byteCount)
        }
    }

    func flush() throws(ColdframeError) { try file.direct.flush() }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        var list = ExtentList(limit: limit)
        for extent in try file.direct.extents(at: offset, byteCount: byteCount, limit: limit) {
            // What is read straight from a file would not be copied.
            let kind: Extent.Kind = if case .zero = extent.kind { extent.kind } else { .opaque }
            list.append(Extent(offset: extent.offset, byteCount: extent.byteCount, kind: kind))
        }
        return list.extents
    }

    func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        guard let driver = file.driver as? any Resizable else {
            throw ColdframeError(.unsupported, "Image format driver does not support resize")
        }
        try driver.resize(toByteCount: byteCount)
    }

    /// The node below belongs to the graph, which closes it.
    func close() throws(ColdframeError) {}
}

extension UnsafeMutableRawBufferPointer {
    /// The bytes of `range`, where the buffer begins at `start`.
    fileprivate func part(_ range: Range<UInt64>, from start: UInt64) -> UnsafeMutableRawBufferPointer {
        let bounds = Int(range.lowerBound - start)..<Int(range.upperBound - start)
        return UnsafeMutableRawBufferPointer(rebasing: self[bounds])
    }
}

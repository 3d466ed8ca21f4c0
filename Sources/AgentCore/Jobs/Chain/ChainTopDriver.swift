import BlockCopying
import ColdframeKit

/// The filter above the topmost image of a job on a chain. It passes everything on; writers of a stream keep out of the part
/// that is being copied.
final class ChainTopDriver: BlockDriver, Filtering {
    let driverName: String
    let threadModel = ThreadModel.parallel
    private let child: BlockNode
    private let reservations: RangeReservations?

    init(_ name: String, child: BlockNode, reservations: RangeReservations? = nil) {
        driverName = name
        self.child = child
        self.reservations = reservations
    }

    var shown: BlockNode { child }
    var byteCount: UInt64 { child.byteCount }
    var isReadOnly: Bool { child.isReadOnly }
    var displayFilename: String { child.driver.displayFilename }
    func information() throws(ColdframeError) -> BlockInformation { try child.driver.information() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try child.direct.read(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try reserving(offset, UInt64(buffer.count)) { () throws(ColdframeError) in
            try child.direct.write(buffer, at: offset, flags: flags)
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try reserving(offset, byteCount) { () throws(ColdframeError) in
            try child.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try reserving(offset, byteCount) { () throws(ColdframeError) in
            try child.direct.discard(at: offset, byteCount: byteCount)
        }
    }

    private func reserving(
        _ offset: UInt64, _ byteCount: UInt64, _ body: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        guard let reservations, byteCount > 0 else { return try body() }
        let range = offset..<offset + byteCount
        reservations.reserve(range)
        defer { reservations.release(range) }
        try body()
    }

    func flush() throws(ColdframeError) { try child.direct.flush() }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try child.direct.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    /// The child belongs to the graph, which closes it.
    func close() throws(ColdframeError) {}
}

import BlockCopying
import ColdframeKit

/// The filter above the topmost image of a job on a chain. It passes everything on; writers of a stream keep out of the part
/// that is being copied.
final class ChainTopDriver: BlockDriver, Filtering {
    let driverName: String
    let threadModel = ThreadModel.parallel
    let shown: BlockNode
    private let reservations: RangeReservations?

    init(_ name: String, child: BlockNode, reservations: RangeReservations? = nil) {
        driverName = name
        shown = child
        self.reservations = reservations
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

    private func reserving(
        _ offset: UInt64, _ byteCount: UInt64, _ body: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        guard let reservations, byteCount > 0 else { return try body() }
        let range = offset..<offset + byteCount
        reservations.reserve(range)
        defer { reservations.release(range) }
        try body()
    }
}

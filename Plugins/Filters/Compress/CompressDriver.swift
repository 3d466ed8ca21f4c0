import BlockCopying
import ColdframeKit

/// An open `compress` filter: stores what is written compressed, and passes everything else on. Any number of threads.
///
/// The format stores whole units. A write that covers a part of one reads the rest and stores the unit anew; so whatever
/// changes a unit reserves it first, or the rest would be what it was before somebody else's write.
final class CompressDriver: BlockDriver, Filtering {
    let driverName = "compress"
    let threadModel = ThreadModel.parallel
    let isReadOnly: Bool
    let shown: BlockNode
    private let unitByteCount: UInt64
    private let reservations = RangeReservations()

    /// - Parameter unitByteCount: what the format below stores at a time, a power of two.
    init(_ file: BlockNode, unitByteCount: UInt64, isReadOnly: Bool) {
        shown = file
        self.unitByteCount = unitByteCount
        self.isReadOnly = isReadOnly
    }

    /// As QEMU's filters: the format's details and names are told of its own node.
    func information() throws(ColdframeError) -> BlockInformation {
        let below = try shown.driver.information()
        return BlockInformation(allocatedByteCount: below.allocatedByteCount, isDirty: below.isDirty)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let range = offset..<offset + UInt64(buffer.count)
        try holdingUnits(of: range) { () throws(ColdframeError) in
            var position = range.lowerBound
            while position < range.upperBound {
                let unit = unit(at: position)
                var end = min(unit.upperBound, range.upperBound)
                if position == unit.lowerBound, end == unit.upperBound {
                    // All whole units at once; the last of the disk may be shorter.
                    end = range.upperBound == byteCount ? byteCount : range.upperBound & ~(unitByteCount - 1)
                    try shown.direct.writeCompressed(part(buffer, position..<end, of: range), at: position)
                } else {
                    try rewrite(unit, with: part(buffer, position..<end, of: range), at: position)
                }
                position = end
            }
        }
        if flags.contains(.forceUnitAccess) { try shown.direct.flush() }
    }

    /// The unit at an offset, as much of it as the disk has.
    private func unit(at offset: UInt64) -> Range<UInt64> {
        let start = offset & ~(unitByteCount - 1)
        return start..<min(start + unitByteCount, byteCount)
    }

    private func part(
        _ buffer: UnsafeRawBufferPointer, _ piece: Range<UInt64>, of range: Range<UInt64>
    ) -> UnsafeRawBufferPointer {
        let start = Int(piece.lowerBound - range.lowerBound)
        return UnsafeRawBufferPointer(rebasing: buffer[start..<start + piece.count])
    }

    /// Stores a unit anew with a part of it changed. The caller has reserved it.
    private func rewrite(
        _ unit: Range<UInt64>, with bytes: UnsafeRawBufferPointer, at offset: UInt64
    ) throws(ColdframeError) {
        let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: unit.count, alignment: 4096)
        defer { whole.deallocate() }
        try shown.direct.read(into: whole, at: unit.lowerBound)
        UnsafeMutableRawBufferPointer(rebasing: whole[Int(offset - unit.lowerBound)...]).copyMemory(from: bytes)
        try shown.direct.writeCompressed(UnsafeRawBufferPointer(whole), at: unit.lowerBound)
    }

    private func holdingUnits(
        of range: Range<UInt64>, _ body: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        guard !range.isEmpty else { return }
        let units = unit(at: range.lowerBound).lowerBound..<unit(at: range.upperBound - 1).upperBound
        reservations.reserve(units)
        defer { reservations.release(units) }
        try body()
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try holdingUnits(of: offset..<offset + byteCount) { () throws(ColdframeError) in
            try shown.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
        }
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try holdingUnits(of: offset..<offset + byteCount) { () throws(ColdframeError) in
            try shown.direct.discard(at: offset, byteCount: byteCount)
        }
    }
}

import ColdframeKit

/// The bytes of a child from an offset on, unchanged.
///
/// Without a size of its own the window follows the child's end. Requests are only shifted: the window holds no lock
/// and no memory.
final class RawDriver: BlockDriver, Resizable, WritebackStarting {
    let driverName = "raw"
    let threadModel = ThreadModel.parallel
    let isReadOnly: Bool
    private let child: BlockNode
    private let offset: UInt64
    private let fixedSize: UInt64?

    init(child: BlockNode, offset: UInt64, fixedSize: UInt64?, isReadOnly: Bool) {
        self.child = child
        self.offset = offset
        self.fixedSize = fixedSize
        self.isReadOnly = isReadOnly
    }

    var byteCount: UInt64 {
        if let fixedSize { return fixedSize }
        let whole = child.byteCount
        return whole > offset ? whole - offset : 0
    }

    var displayFilename: String { child.driver.displayFilename }

    func information() throws(ColdframeError) -> BlockInformation {
        BlockInformation(allocatedByteCount: try child.driver.information().allocatedByteCount)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at position: UInt64) throws(ColdframeError) {
        try child.direct.read(into: buffer, at: try shifted(position, UInt64(buffer.count)))
    }

    func write(_ buffer: UnsafeRawBufferPointer, at position: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try child.direct.write(buffer, at: try shifted(position, UInt64(buffer.count)), flags: flags)
    }

    func writeZeroes(at position: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try child.direct.writeZeroes(at: try shifted(position, byteCount), byteCount: byteCount, flags: flags)
    }

    func discard(at position: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try child.direct.discard(at: try shifted(position, byteCount), byteCount: byteCount)
    }

    func flush() throws(ColdframeError) { try child.direct.flush() }
    func startWriteback() { (child.driver as? any WritebackStarting)?.startWriteback() }

    func extents(at position: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        var extents = try child.direct.extents(
            at: try shifted(position, byteCount), byteCount: byteCount, limit: limit)
        if offset > 0 {
            for index in extents.indices { extents[index].offset -= offset }
        }
        return extents
    }

    func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        if fixedSize != nil { throw ColdframeError(.unsupported, "Cannot resize fixed-size raw disks") }
        guard let resizable = child.driver as? any Resizable else {
            throw ColdframeError(
                .unsupported,
                "Node '\(child.name)' cannot change its size: driver '\(child.driver.driverName)' is not resizable")
        }
        let (whole, overflow) = offset.addingReportingOverflow(byteCount)
        if overflow { throw ColdframeError(.invalidArgument, "Disk size too large for the chosen offset") }
        try resizable.resize(toByteCount: whole)
    }

    /// The child belongs to the graph, which closes it.
    func close() throws(ColdframeError) {
        if !isReadOnly { try child.direct.flush() }
    }

    /// Where a range of the window lies in the child. The window's end is checked here too: what lies behind it belongs
    /// to somebody else.
    private func shifted(_ position: UInt64, _ byteCount: UInt64) throws(ColdframeError) -> UInt64 {
        let (end, overflow) = position.addingReportingOverflow(byteCount)
        let (start, shiftOverflow) = position.addingReportingOverflow(offset)
        guard !overflow, !shiftOverflow, fixedSize.map({ end <= $0 }) ?? true else {
            throw ColdframeError(
                .invalidArgument, "Request for \(byteCount) bytes at \(position) lies outside the raw window")
        }
        return start
    }
}

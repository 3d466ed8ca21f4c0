/// Shows another node with something added, and holds nothing itself: what is allocated is asked of that node.
///
/// Whatever a filter has nothing to add to goes to the node: it writes only the methods that make it what it is.
public protocol Filtering: BlockDriver {
    /// The node that is shown.
    var shown: BlockNode { get }
}

extension Filtering {
    public var byteCount: UInt64 { shown.byteCount }
    public var isReadOnly: Bool { shown.isReadOnly }
    public var displayFilename: String { shown.driver.displayFilename }
    public var clusterByteCount: UInt32? { shown.driver.clusterByteCount }
    public func information() throws(ColdframeError) -> BlockInformation { try shown.driver.information() }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try shown.direct.read(into: buffer, at: offset)
    }

    public func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try shown.direct.write(buffer, at: offset, flags: flags)
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try shown.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    public func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try shown.direct.discard(at: offset, byteCount: byteCount)
    }

    public func flush() throws(ColdframeError) { try shown.direct.flush() }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try shown.direct.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    /// The node below belongs to the graph, which closes it.
    public func close() throws(ColdframeError) {}

    /// The answer of `extents` for a filter that has to see every read: what is told where it lies in a file could be read there.
    public func extentsWithoutPlaces(
        at offset: UInt64, byteCount: UInt64, limit: Int
    ) throws(ColdframeError) -> [Extent] {
        var list = ExtentList(limit: limit)
        for extent in try shown.direct.extents(at: offset, byteCount: byteCount, limit: limit) {
            let kind: Extent.Kind = if case .zero = extent.kind { extent.kind } else { .opaque }
            list.append(Extent(offset: extent.offset, byteCount: extent.byteCount, kind: kind))
        }
        return list.extents
    }
}

extension Filtering where Self: Resizable {
    public func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        try resizableBelow().resize(toByteCount: byteCount)
    }

    public func grow(toByteCount byteCount: UInt64) throws(ColdframeError) {
        try growBelow(toByteCount: byteCount)
    }

    /// Gives more space to the format above, from the node below; QEMU's text if that cannot.
    public func growBelow(toByteCount byteCount: UInt64) throws(ColdframeError) {
        guard let driver = shown.driver as? any Growable else { throw Self.fixedSize }
        try driver.grow(toByteCount: byteCount)
    }

    /// The driver below, if it can change its size; QEMU's text if not.
    public func resizableBelow() throws(ColdframeError) -> any Resizable {
        guard let driver = shown.driver as? any Resizable else { throw Self.fixedSize }
        return driver
    }

    private static var fixedSize: ColdframeError {
        ColdframeError(.unsupported, "Image format driver does not support resize")
    }
}

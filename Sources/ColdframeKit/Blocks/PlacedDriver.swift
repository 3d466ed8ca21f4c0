/// Where the beginning of a range of a disk lies, and for how many bytes that holds.
public struct Place: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        /// Reads as zeros; `allocated` as in `Extent`.
        case zero(allocated: Bool)
        /// As it is in the file, from this byte on.
        case data(fileOffset: UInt64)
        /// In the file, but not as it is (compressed): `readPacked` has it.
        case packed
    }
    public var byteCount: UInt64
    public var kind: Kind

    public init(byteCount: UInt64, kind: Kind) {
        self.byteCount = byteCount
        self.kind = kind
    }
}

/// A driver whose disk lies in pieces of one file: it says where, and is read and described for it.
///
/// Reading and `extents` both stand on `place`, so they cannot disagree, and both check that the file has what it says.
public protocol PlacedDriver: BlockDriver {
    /// The node that the image lies in.
    var file: BlockNode { get }
    /// Where the beginning of `range` lies. The range is not empty and lies within the disk; the answer holds for at least
    /// one byte and at most the range. Let runs be as long as they are: each is one request. May read tables, never the
    /// guest's data.
    func place(_ range: Range<UInt64>) throws(ColdframeError) -> Place
    /// Fills `buffer` with a range that `place` has called packed. Only for formats that have such.
    func readPacked(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError)
    /// What has no place is a lack of content, as the format has images that stand on others. The default is no: it is
    /// content that reads as zeros.
    var mayStandOnAnother: Bool { get }
}

extension PlacedDriver {
    public var displayFilename: String { file.driver.displayFilename }
    public var mayStandOnAnother: Bool { false }

    public func readPacked(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        throw ColdframeError(.unsupported, "Driver '\(driverName)' has no packed data")
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        var done = 0
        while done < buffer.count {
            let start = offset + UInt64(done)
            let place = try place(start..<offset + UInt64(buffer.count))
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + Int(place.byteCount)])
            switch place.kind {
            case .zero: part.initializeMemory(as: UInt8.self, repeating: 0)
            case .data(let fileOffset): try file.direct.readPart(into: part, at: fileOffset, "The disk at \(start)")
            case .packed: try readPacked(into: part, at: start)
            }
            done += part.count
        }
    }

    public func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        var list = ExtentList(limit: limit)
        let end = offset + byteCount
        var position = offset
        // An image of very many pieces of a kind is described in several answers, each in bounded time.
        var pieceCount = 0
        while position < end, !list.isFull, pieceCount < 65536 {
            let place = try place(position..<end)
            list.append(Extent(offset: position, byteCount: place.byteCount, kind: extentKind(place)))
            position += place.byteCount
            pieceCount += 1
        }
        return list.extents
    }

    /// Data that lies in a plain file can be served from there without a copy. What lies outside of it has no place that
    /// could be mapped; whoever reads it gets the error.
    private func extentKind(_ place: Place) -> Extent.Kind {
        switch place.kind {
        case .zero(let isAllocated): return .zero(allocated: isAllocated)
        case .packed: return .opaque
        case .data(let fileOffset):
            let size = file.byteCount
            guard let source = file.driver as? any ExtentSource, fileOffset <= size,
                place.byteCount <= size - fileOffset
            else { return .opaque }
            return .data(source: source, hostOffset: fileOffset)
        }
    }
}

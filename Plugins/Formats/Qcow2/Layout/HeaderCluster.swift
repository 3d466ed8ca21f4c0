import ColdframeKit

/// What follows the header's fields.
struct HeaderNames: Sendable {
    var extensions: HeaderExtensions
    var backingFilename: String?
}

/// The first cluster of an image as a whole: fields, extensions, the backing file's name.
struct HeaderCluster: Sendable {
    var header: Header
    var extensions: HeaderExtensions
    var backingFilename: String?

    /// Which directory of bitmaps is in force; nil for none.
    mutating func setBitmaps(_ bitmaps: HeaderExtensions.BitmapsExtension?) {
        extensions.setBitmaps(bitmaps)
        if bitmaps == nil {
            header.autoclear &= ~Header.bitmapsAutoclear
        } else {
            header.autoclear |= Header.bitmapsAutoclear
        }
    }

    /// The bytes, without the zeros behind, the name behind the extensions. Sets the header's fields on where the name lies.
    mutating func encode() throws(ColdframeError) -> [UInt8] {
        let bytes = try encodeHead(later: [], nameOffset: headByteCount) + nameBytes
        guard bytes.count <= clusterByteCount else {
            throw ColdframeError(
                .invalidArgument, "Header and file names do not fit into a cluster of \(clusterByteCount) bytes")
        }
        return bytes
    }

    /// Fields and extensions, for a name that lies at `nameOffset`. Sets the header's fields on it. `later` are the header's
    /// bytes behind the fields that we know, kept as they are.
    mutating func encodeHead(later: ArraySlice<UInt8>, nameOffset: Int) throws(ColdframeError) -> [UInt8] {
        let nameByteCount = nameBytes.count
        guard nameByteCount <= Limits.backingNameByteCount else {
            throw ColdframeError(.invalidArgument, "Backing file name too long")
        }
        header.backingNameByteCount = UInt32(nameByteCount)
        header.backingNameOffset = nameByteCount == 0 ? 0 : UInt64(nameOffset)
        var bytes = header.encodedFixedFields
        bytes.append(contentsOf: repeatElement(0, count: Int(header.headerByteCount) - bytes.count))
        if header.headerByteCount > Header.compressionTypeOffset {
            bytes[Header.compressionTypeOffset] = header.compressionType
        }
        for (index, byte) in zip(later.indices, later) where index < Int(header.headerByteCount) { bytes[index] = byte }
        return bytes + extensions.encoded
    }

    /// What fields and extensions take.
    var headByteCount: Int { Int(header.headerByteCount) + extensions.encoded.count }
    var nameBytes: [UInt8] { Array((backingFilename ?? "").utf8) }
    private var clusterByteCount: Int { Int(header.geometry.clusterByteCount) }
}

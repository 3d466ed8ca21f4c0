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

    /// The bytes, without the zeros behind. Sets the header's fields on where the name lies. `later` are the header's
    /// bytes behind the fields that we know, kept as they are.
    mutating func encode(later: ArraySlice<UInt8> = []) throws(ColdframeError) -> [UInt8] {
        let name = Array((backingFilename ?? "").utf8)
        guard name.count <= Limits.backingNameByteCount else {
            throw ColdframeError(.invalidArgument, "Backing file name too long")
        }
        let encoded = extensions.encoded
        header.backingNameByteCount = UInt32(name.count)
        header.backingNameOffset = name.isEmpty ? 0 : UInt64(Int(header.headerByteCount) + encoded.count)
        var bytes = header.encodedFixedFields
        bytes.append(contentsOf: repeatElement(0, count: Int(header.headerByteCount) - bytes.count))
        if header.headerByteCount > Header.compressionTypeOffset {
            bytes[Header.compressionTypeOffset] = header.compressionType
        }
        for (index, byte) in zip(later.indices, later) where index < Int(header.headerByteCount) { bytes[index] = byte }
        bytes.append(contentsOf: encoded)
        bytes.append(contentsOf: name)
        guard UInt64(bytes.count) <= header.geometry.clusterByteCount else {
            throw ColdframeError(
                .invalidArgument,
                "Header and file names do not fit into a cluster of \(header.geometry.clusterByteCount) bytes")
        }
        return bytes
    }
}

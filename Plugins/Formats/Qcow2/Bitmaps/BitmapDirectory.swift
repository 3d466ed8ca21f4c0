import ColdframeKit

/// One entry of the directory of persistent bitmaps. The format text's section "Bitmap directory".
struct BitmapEntry: Sendable, Equatable {
    var name: String
    var granularityBits: UInt8
    var tableOffset: HostOffset
    /// Entries of its table, 8 bytes each.
    var tableEntryCount: UInt32
    var flags: Flags
    /// Kept as it is; readers that do not know it may use the bitmap only if a flag says so.
    var extra: [UInt8] = []

    struct Flags: OptionSet, Sendable {
        let rawValue: UInt32
        /// Not saved in order: the bits cannot be trusted.
        static let inUse = Flags(rawValue: 1)
        /// Records writes from the image's opening on.
        static let auto = Flags(rawValue: 2)
        /// Extra data does not matter to readers that do not know it.
        static let extraDataCompatible = Flags(rawValue: 4)
        static let known: Flags = [.inUse, .auto, .extraDataCompatible]
    }
}

/// The directory of an image's persistent bitmaps, as bytes.
enum BitmapDirectory {
    static let countLimit: UInt32 = 65535
    static let byteCountLimit: UInt64 = 1024 * 65535
    static let nameByteCountLimit = 1023
    static let granularityBitsRange: ClosedRange<UInt8> = 9...31
    /// Entries of one bitmap's table, and bytes of its bits; QEMU's bounds.
    static let tableEntryLimit: UInt32 = 0x800_0000
    static let bitmapByteCountLimit: UInt64 = 0x2000_0000
    private static let fixedByteCount = 24
    private static let typeDirtyTracking: UInt8 = 1

    /// Reads the directory that the header's extension names.
    static func read(
        _ ext: HeaderExtensions.BitmapsExtension, _ geometry: Geometry, _ file: ImageFile
    ) throws(ColdframeError) -> [BitmapEntry] {
        guard ext.count > 0 else {
            throw ColdframeError(.corrupt, "bitmaps_ext: found bitmaps extension with zero bitmaps", errno: 22)
        }
        guard ext.count <= countLimit else {
            throw ColdframeError(.corrupt, "bitmaps_ext: too many bitmaps", errno: 22)
        }
        guard geometry.isClusterAligned(ext.directoryOffset.rawValue) else {
            throw ColdframeError(.corrupt, "bitmaps_ext: invalid bitmap directory offset", errno: 22)
        }
        guard ext.directoryByteCount <= byteCountLimit else {
            throw ColdframeError(
                .corrupt, "bitmaps_ext: bitmap directory size (\(ext.directoryByteCount)) is too large")
        }
        // Whatever the size says, it lies in the file: checked before memory is taken for it.
        let bytes = try file.readMetadata(
            byteCount: Int(min(ext.directoryByteCount, file.byteCount)), at: ext.directoryOffset, "Bitmap directory")
        guard UInt64(bytes.count) == ext.directoryByteCount else {
            throw ColdframeError(.corrupt, "Bitmap directory lies outside the image file of \(file.byteCount) bytes")
        }
        var entries: [BitmapEntry] = []
        var position = 0
        while position < bytes.count, entries.count < Int(ext.count) {
            entries.append(try readEntry(bytes, &position, geometry))
        }
        guard position == bytes.count, entries.count == Int(ext.count) else {
            throw ColdframeError(.corrupt, "Bitmap directory holds another number of bitmaps than the header says")
        }
        return entries
    }

    private static func readEntry(
        _ bytes: [UInt8], _ position: inout Int, _ geometry: Geometry
    ) throws(ColdframeError) -> BitmapEntry {
        guard bytes.count - position >= fixedByteCount else {
            throw ColdframeError(.corrupt, "Bitmap directory ends within an entry")
        }
        let nameByteCount = Int(bytes.bigEndian(UInt16.self, at: position + 18))
        let extraByteCount = Int(bytes.bigEndian(UInt32.self, at: position + 20))
        let start = position + fixedByteCount
        guard extraByteCount <= bytes.count - start, nameByteCount <= bytes.count - start - extraByteCount else {
            throw ColdframeError(.corrupt, "Bitmap directory ends within an entry")
        }
        let extra = Array(bytes[start..<start + extraByteCount])
        let name = bytes[start + extraByteCount..<start + extraByteCount + nameByteCount]
        let entry = BitmapEntry(
            name: String(decoding: name, as: UTF8.self), granularityBits: bytes[position + 17],
            tableOffset: HostOffset(bytes.bigEndian(UInt64.self, at: position)),
            tableEntryCount: bytes.bigEndian(UInt32.self, at: position + 8),
            flags: BitmapEntry.Flags(rawValue: bytes.bigEndian(UInt32.self, at: position + 12)), extra: extra)
        guard nameByteCount > 0, nameByteCount <= nameByteCountLimit, bytes[position + 16] == typeDirtyTracking,
            granularityBitsRange.contains(entry.granularityBits), entry.tableEntryCount > 0,
            entry.tableEntryCount <= tableEntryLimit, entry.flags.isSubset(of: .known),
            geometry.isClusterAligned(entry.tableOffset.rawValue), entry.tableOffset.rawValue != 0,
            UInt64(entry.tableEntryCount) << UInt64(geometry.clusterBits) <= bitmapByteCountLimit + geometry.clusterMask
        else {
            throw ColdframeError(.corrupt, "Bitmap '\(entry.name)' doesn't satisfy the constraints")
        }
        position = min(bytes.count, (start + extraByteCount + nameByteCount + 7) & ~7)
        return entry
    }

    /// Whether a bitmap may have so many bytes of bits.
    static func canHold(_ byteCount: UInt64, _ geometry: Geometry) -> Bool {
        byteCount <= min(bitmapByteCountLimit, UInt64(tableEntryLimit) << UInt64(geometry.clusterBits))
    }

    /// Of the entry of a bitmap that is written anew.
    static func entryByteCount(name: String) -> UInt64 { UInt64(fixedByteCount + name.utf8.count + 7) & ~7 }

    static func encode(_ entries: [BitmapEntry]) -> [UInt8] {
        var bytes: [UInt8] = []
        for entry in entries {
            let name = Array(entry.name.utf8)
            bytes.appendBigEndian(entry.tableOffset.rawValue)
            bytes.appendBigEndian(entry.tableEntryCount)
            bytes.appendBigEndian(entry.flags.rawValue)
            bytes.append(typeDirtyTracking)
            bytes.append(entry.granularityBits)
            bytes.appendBigEndian(UInt16(name.count))
            bytes.appendBigEndian(UInt32(entry.extra.count))
            bytes.append(contentsOf: entry.extra)
            bytes.append(contentsOf: name)
            bytes.pad(toMultipleOf: 8)
        }
        return bytes
    }

    /// The table of a bitmap: for each cluster of its bits where it lies.
    static func readTable(_ entry: BitmapEntry, _ file: ImageFile) throws(ColdframeError) -> [BitmapTableEntry] {
        try file.readWords(
            count: Int(entry.tableEntryCount), at: entry.tableOffset, "Table of bitmap '\(entry.name)'"
        ).map(BitmapTableEntry.init)
    }
}

/// The format text's section "Bitmap table".
struct BitmapTableEntry: Sendable, Equatable {
    let word: UInt64
    init(_ word: UInt64) { self.word = word }
    var offset: UInt64 { word & EntryBits.offsetMask }
    /// Without a cluster: all bits are set.
    var isAllOnes: Bool { offset == 0 && word & 1 != 0 }
    /// No reserved bit is set, and the cluster is one.
    func isValid(_ geometry: Geometry) -> Bool {
        word & ~(EntryBits.offsetMask | 1) == 0 && geometry.isClusterAligned(offset) && (offset == 0 || word & 1 == 0)
    }
}

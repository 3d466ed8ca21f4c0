import ColdframeKit

/// The first sector of an image, or the last but one of a stream. Numbers are little-endian, places and sizes in sectors.
///
/// | byte | size | field |
/// |---|---|---|
/// | 0 | 4 | `KDMV` |
/// | 4 | 4 | version: 1 to 3 |
/// | 8 | 4 | flags: bit 2 zero grains, bit 16 compressed, bit 17 markers |
/// | 12 | 8 | size of the disk |
/// | 20 | 8 | sectors of a grain |
/// | 28 | 8, 8 | where the descriptor is, and its size |
/// | 44 | 4 | entries of a grain table: 512 |
/// | 56 | 8 | where the grain directory is; all bits set: the header at the file's end knows |
/// | 77 | 2 | compression: 0 none, 1 deflate |
struct VmdkHeader: Sendable, Equatable {
    static let magic = Array("KDMV".utf8)
    /// How files of other layouts begin.
    static let foreignBeginnings = ["COWD", "# Disk DescriptorFile"]

    let diskByteCount: UInt64
    let grainByteCount: UInt64
    let isCompressed: Bool
    let hasZeroGrains: Bool
    let descriptorOffset: UInt64
    let descriptorByteCount: Int
    /// Of one grain table.
    let tableEntryCount: UInt64
    let directoryOffset: UInt64
    let directoryEntryCount: Int

    /// Of the directory: 16 MiB of memory.
    private static let directoryEntryLimit: UInt64 = 4 << 20
    private static let descriptorByteLimit: UInt64 = 1 << 20
    /// Of one that is unpacked in memory.
    private static let packedGrainByteLimit: UInt64 = 4 << 20

    /// Reads the header that is in force. Blocks.
    static func read(_ file: BlockNode) throws(ColdframeError) -> VmdkHeader {
        // A descriptor that stands alone is shorter than a sector.
        let count = Int(max(4, min(512, file.byteCount)))
        var first = try file.direct.part(byteCount: count, at: 0, "The header")
        first.pad(toMultipleOf: 512)
        guard first.bigEndian(UInt64.self, at: 56) == .max else { return try VmdkHeader(first) }
        // A stream: its end is a marker, the header, and an empty marker.
        let end = file.byteCount / 512 * 512
        let tail = try file.direct.part(byteCount: 1536, at: end < 2048 ? .max : end - 1536, "The footer")
        let isFooter = tail.littleEndian(UInt32.self, at: 8) == 0 && tail.littleEndian(UInt32.self, at: 12) == 3
        guard isFooter, tail[1024..<1040].allSatisfy({ $0 == 0 }) else {
            throw ColdframeError(.corrupt, "The stream has no footer at its end: it was cut short")
        }
        return try VmdkHeader(Array(tail[512..<1024]))
    }

    private init(_ bytes: [UInt8]) throws(ColdframeError) {
        guard bytes.starts(with: Self.magic) else {
            guard Self.foreignBeginnings.contains(where: { bytes.starts(with: $0.utf8) }) else {
                throw ColdframeError(.corrupt, "This is no vmdk image")
            }
            throw ColdframeError(
                .unsupported, "The image is no single sparse file: convert it, for example with qemu-img convert")
        }
        let version = bytes.littleEndian(UInt32.self, at: 4)
        let flags = bytes.littleEndian(UInt32.self, at: 8)
        let compression = bytes.littleEndian(UInt16.self, at: 77)
        guard (1...3).contains(version), compression <= 1 else {
            throw ColdframeError(.unsupported, "The image has version \(version) and compression \(compression)")
        }
        isCompressed = compression == 1
        guard !isCompressed || flags >> 16 & 3 == 3 else {
            throw ColdframeError(.unsupported, "The image is compressed without markers")
        }
        hasZeroGrains = flags >> 2 & 1 != 0
        let sectors = bytes.littleEndian(UInt64.self, at: 12)
        let grainSectors = bytes.littleEndian(UInt64.self, at: 20)
        tableEntryCount = UInt64(bytes.littleEndian(UInt32.self, at: 44))
        guard grainSectors.nonzeroBitCount == 1, grainSectors <= 0x20_0000, (1...512).contains(tableEntryCount),
            sectors > 0, sectors <= 1 << 48
        else {
            throw ColdframeError(
                .corrupt,
                "\(sectors) sectors in grains of \(grainSectors) and tables of \(tableEntryCount) entries are no disk")
        }
        diskByteCount = sectors * 512
        grainByteCount = grainSectors * 512
        guard !isCompressed || grainByteCount <= Self.packedGrainByteLimit else {
            throw ColdframeError(.unsupported, "The image has compressed grains of \(grainByteCount) bytes")
        }
        let tableSectors = tableEntryCount * grainSectors
        let entryCount = (sectors + tableSectors - 1) / tableSectors
        guard entryCount <= Self.directoryEntryLimit else {
            throw ColdframeError(
                .unsupported,
                "The grain directory has \(entryCount) entries; up to \(Self.directoryEntryLimit) are read")
        }
        directoryEntryCount = Int(entryCount)
        directoryOffset = try Self.byteOffset(bytes.littleEndian(UInt64.self, at: 56), "The grain directory")
        descriptorOffset = try Self.byteOffset(bytes.littleEndian(UInt64.self, at: 28), "The descriptor")
        let descriptorSectors = bytes.littleEndian(UInt64.self, at: 36)
        guard descriptorOffset > 0 else {
            throw ColdframeError(.unsupported, "The file is a part of an image: it has no descriptor of its own")
        }
        guard descriptorSectors <= Self.descriptorByteLimit / 512 else {
            throw ColdframeError(.corrupt, "The descriptor has \(descriptorSectors) sectors, which cannot be")
        }
        descriptorByteCount = Int(descriptorSectors * 512)
    }

    private static func byteOffset(_ sector: UInt64, _ what: String) throws(ColdframeError) -> UInt64 {
        guard sector <= 1 << 48 else {
            throw ColdframeError(.corrupt, "\(what) lies in sector \(sector), where no file reaches")
        }
        return sector * 512
    }
}

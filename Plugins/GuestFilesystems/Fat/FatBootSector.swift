import ColdframeKit

/// The first 512 bytes of a volume, field by field as the specification ("FAT: General Overview of On-Disk Format") has them.
/// Nothing is checked here but what `isPlausible` says.
struct FatBootSector {
    static let byteCount = 512
    private let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var sectorByteCount: UInt64 { UInt64(bytes.littleEndian(UInt16.self, at: 11)) }
    var sectorsPerCluster: UInt64 { UInt64(bytes[13]) }
    var reservedSectorCount: UInt64 { UInt64(bytes.littleEndian(UInt16.self, at: 14)) }
    var tableCount: UInt64 { UInt64(bytes[16]) }
    var rootEntryCount: UInt64 { UInt64(bytes.littleEndian(UInt16.self, at: 17)) }
    var sectorCount: UInt64 {
        let short = bytes.littleEndian(UInt16.self, at: 19)
        return short != 0 ? UInt64(short) : UInt64(bytes.littleEndian(UInt32.self, at: 32))
    }
    /// Only FAT32 has none of the short kind.
    var isFat32: Bool { bytes.littleEndian(UInt16.self, at: 22) == 0 }
    var tableSectorCount: UInt64 {
        isFat32
            ? UInt64(bytes.littleEndian(UInt32.self, at: 36)) : UInt64(bytes.littleEndian(UInt16.self, at: 22))
    }

    // FAT32 only.
    var flags: UInt16 { bytes.littleEndian(UInt16.self, at: 40) }
    var version: UInt16 { bytes.littleEndian(UInt16.self, at: 42) }
    var rootCluster: UInt32 { bytes.littleEndian(UInt32.self, at: 44) }

    /// The part that FAT32 has further behind.
    private var extendedOffset: Int { isFat32 ? 64 : 36 }
    private var hasIdentity: Bool { bytes[extendedOffset + 2] == 0x29 }
    var identity: String? {
        guard hasIdentity else { return nil }
        let number = bytes.littleEndian(UInt32.self, at: extendedOffset + 3)
        let digits = String(number, radix: 16, uppercase: true)
        let padded = String(repeating: "0", count: 8 - digits.count) + digits
        return "\(padded.prefix(4))-\(padded.suffix(4))"
    }
    var label: String? {
        guard hasIdentity else { return nil }
        let text = FatNames.text(bytes[extendedOffset + 7..<extendedOffset + 18])
        return text.isEmpty || text == "NO NAME" ? nil : text
    }

    /// The marks that a FAT volume has, and that neither a partition table nor another filesystem has all of.
    var isPlausible: Bool {
        bytes[510] == 0x55 && bytes[511] == 0xAA && (bytes[0] == 0xEB || bytes[0] == 0xE9)
            && [512, 1024, 2048, 4096].contains(sectorByteCount)
            && sectorsPerCluster != 0 && sectorsPerCluster & (sectorsPerCluster - 1) == 0
            && reservedSectorCount != 0 && tableCount != 0 && (bytes[21] == 0xF0 || bytes[21] >= 0xF8)
            && tableSectorCount != 0 && sectorCount != 0
    }
}

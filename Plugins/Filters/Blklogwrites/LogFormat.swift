import ColdframeKit

// The format of the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock in the first
// sector; then entries, each of a sector of its own and, but for discards, the sectors that were written. All numbers are
// little-endian.

/// What the first sector tells.
struct LogSuperblock: Equatable {
    static let magic: UInt64 = 0x6a_7366_7773_6872
    static let version: UInt64 = 1
    static let byteCount = 28

    var entryCount: UInt64
    var sectorByteCount: UInt32

    init(entryCount: UInt64, sectorByteCount: UInt32) {
        self.entryCount = entryCount
        self.sectorByteCount = sectorByteCount
    }

    /// Throws QEMU's texts. The numbers are not checked.
    init(_ bytes: [UInt8]) throws(ColdframeError) {
        guard bytes.littleEndian(UInt64.self, at: 0) == Self.magic else {
            throw ColdframeError(.corrupt, "Invalid log superblock magic")
        }
        let version = bytes.littleEndian(UInt64.self, at: 8)
        guard version == Self.version else { throw ColdframeError(.corrupt, "Unsupported log version \(version)") }
        entryCount = bytes.littleEndian(UInt64.self, at: 16)
        sectorByteCount = bytes.littleEndian(UInt32.self, at: 24)
    }

    /// A whole sector.
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        for value in [Self.magic, Self.version, entryCount] { bytes.appendLittleEndian(value) }
        bytes.appendLittleEndian(sectorByteCount)
        bytes.pad(toMultipleOf: Int(sectorByteCount))
        return bytes
    }
}

/// What one entry says. Its place and length are in the log's sectors.
struct LogEntry: Equatable {
    struct Flags: OptionSet {
        let rawValue: UInt64
        static let flush = Flags(rawValue: 1)
        static let forceUnitAccess = Flags(rawValue: 2)
        static let discard = Flags(rawValue: 4)
        static let mark = Flags(rawValue: 8)
        static let all: Flags = [.flush, .forceUnitAccess, .discard, .mark]
    }
    static let byteCount = 32

    var sector: UInt64 = 0
    var sectorCount: UInt64 = 0
    var flags: Flags = []

    init(sector: UInt64 = 0, sectorCount: UInt64 = 0, flags: Flags = []) {
        self.sector = sector
        self.sectorCount = sectorCount
        self.flags = flags
    }

    init(_ bytes: [UInt8]) {
        sector = bytes.littleEndian(UInt64.self, at: 0)
        sectorCount = bytes.littleEndian(UInt64.self, at: 8)
        flags = Flags(rawValue: bytes.littleEndian(UInt64.self, at: 16))
    }

    /// Sectors of the log that follow the entry's own.
    var dataSectorCount: UInt64 { flags.contains(.discard) ? 0 : sectorCount }

    /// A whole sector.
    func bytes(sectorByteCount: UInt32) -> [UInt8] {
        var bytes: [UInt8] = []
        for value in [sector, sectorCount, flags.rawValue, 0] { bytes.appendLittleEndian(value) }
        bytes.pad(toMultipleOf: Int(sectorByteCount))
        return bytes
    }
}

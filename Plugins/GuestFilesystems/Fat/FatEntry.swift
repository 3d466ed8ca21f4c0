import ColdframeKit

/// What an entry of 32 bytes says of a file.
struct FatEntry {
    private enum Attribute {
        static let label: UInt8 = 0x08
        static let directory: UInt8 = 0x10
        static let longName: UInt8 = 0x0F
        static let longNameMask: UInt8 = 0x3F
    }
    static let byteCount = 32

    enum Kind { case end, free, longName, label, file }

    let isDirectory: Bool
    let firstCluster: UInt32
    let byteCount: UInt64
    let modificationSeconds: Int64?

    static func kind(_ bytes: UnsafeRawBufferPointer) -> Kind {
        switch (bytes[0], bytes[11]) {
        case (0, _): .end
        case (0xE5, _): .free
        case (_, let attributes) where attributes & Attribute.longNameMask == Attribute.longName: .longName
        case (_, let attributes) where attributes & Attribute.label != 0: .label
        default: .file
        }
    }

    /// Of a file's entry.
    init(_ bytes: UnsafeRawBufferPointer, _ width: FatGeometry.Width) {
        isDirectory = bytes[11] & Attribute.directory != 0
        let low = UInt32(bytes.littleEndian(UInt16.self, at: 26))
        firstCluster = width == .fat32 ? UInt32(bytes.littleEndian(UInt16.self, at: 20)) << 16 | low : low
        byteCount = isDirectory ? 0 : UInt64(bytes.littleEndian(UInt32.self, at: 28))
        modificationSeconds = Self.seconds(
            date: bytes.littleEndian(UInt16.self, at: 24), time: bytes.littleEndian(UInt16.self, at: 22))
    }

    var kind: GuestFileKind { isDirectory ? .directory : .regular }
    var attributes: GuestFileAttributes {
        GuestFileAttributes(kind: kind, byteCount: byteCount, modificationSeconds: modificationSeconds)
    }

    /// Since 1970; nil for what is no date.
    private static func seconds(date: UInt16, time: UInt16) -> Int64? {
        let (day, month, year) = (Int64(date & 0x1F), Int64(date >> 5 & 0xF), Int64(date >> 9) + 1980)
        let (second, minute, hour) = (Int64(time & 0x1F) * 2, Int64(time >> 5 & 0x3F), Int64(time >> 11))
        guard (1...31).contains(day), (1...12).contains(month), second < 60, minute < 60, hour < 24 else { return nil }
        // Years that begin in March have their leap day at the end.
        let (y, m) = month > 2 ? (year, month - 3) : (year - 1, month + 9)
        let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468
        return ((days * 24 + hour) * 60 + minute) * 60 + second
    }
}

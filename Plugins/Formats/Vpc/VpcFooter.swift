import ColdframeKit

/// The 512 bytes at the end of every image; one that grows has a copy at its beginning. Numbers are big-endian.
///
/// | byte | size | field |
/// |---|---|---|
/// | 0 | 8 | `conectix` |
/// | 16 | 8 | first byte of the header of an image that grows |
/// | 28 | 4 | the program that made it |
/// | 48 | 8 | size of the disk in bytes |
/// | 56 | 2, 1, 1 | cylinders, heads, sectors of a track |
/// | 60 | 4 | type: 2 fixed, 3 grows, 4 has a parent |
/// | 64 | 4 | complement of the sum of all bytes but these |
struct VpcFooter: Sendable, Equatable {
    static let byteCount = 512
    static let cookie = Array("conectix".utf8)
    /// What the format can describe: 2040 GiB.
    static let sectorLimit: UInt64 = 0xFF00_0000

    enum Kind: UInt32 { case fixed = 2, dynamic = 3 }

    let kind: Kind
    let headerOffset: UInt64
    let diskByteCount: UInt64

    init(_ bytes: [UInt8]) throws(ColdframeError) {
        guard bytes.starts(with: Self.cookie) else {
            throw ColdframeError(.corrupt, "This is no vpc image: it has no footer")
        }
        guard Self.checksum(bytes, at: 64) == bytes.bigEndian(UInt32.self, at: 64) else {
            throw ColdframeError(.corrupt, "The footer does not match its checksum")
        }
        let type = bytes.bigEndian(UInt32.self, at: 60)
        guard let kind = Kind(rawValue: type) else {
            throw ColdframeError(
                .unsupported,
                "The image is of type \(type)\(type == 4 ? ", which has a parent: merge them first" : "")")
        }
        self.kind = kind
        headerOffset = bytes.bigEndian(UInt64.self, at: 16)
        let sectorCount = Self.sectorCount(bytes)
        guard sectorCount <= Self.sectorLimit else {
            throw ColdframeError(
                .corrupt, "The disk of \(sectorCount) sectors is larger than the format's \(Self.sectorLimit)")
        }
        diskByteCount = sectorCount * 512
    }

    /// Virtual PC goes by the geometry, and so does what QEMU makes unless told otherwise; Hyper-V and its kin by the size.
    /// A geometry at its limit says nothing.
    private static func sectorCount(_ bytes: [UInt8]) -> UInt64 {
        let geometry = UInt64(bytes.bigEndian(UInt16.self, at: 56)) * UInt64(bytes[58]) * UInt64(bytes[59])
        let maker = bytes[28..<32]
        let goBySize = ["win ", "qem2", "d2v ", "CTXS"].contains { maker.elementsEqual($0.utf8) }
        if goBySize || maker.starts(with: Array("tap".utf8)) || geometry == 65535 * 16 * 255 {
            return bytes.bigEndian(UInt64.self, at: 48) / 512
        }
        return geometry
    }

    /// Complement of the sum of all bytes, the four of the checksum left out.
    static func checksum(_ bytes: [UInt8], at position: Int) -> UInt32 {
        var sum: UInt32 = 0
        for (index, byte) in bytes.enumerated() where !(position..<position + 4).contains(index) {
            sum &+= UInt32(byte)
        }
        return ~sum
    }
}

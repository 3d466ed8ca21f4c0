import ColdframeKit

/// Names of FAT: eight letters and three in the guest's code page, and long ones in UTF-16.
enum FatNames {
    /// Code page 437, which the specification calls the original one; the volume does not say which was used.
    private static let upperHalf = Array(
        ("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀"
            + "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{A0}").unicodeScalars)

    /// Text of a field that is filled up with spaces.
    static func text(_ bytes: some BidirectionalCollection<UInt8>) -> String {
        var text = String.UnicodeScalarView()
        for byte in bytes { text.append(byte < 0x80 ? Unicode.Scalar(byte) : upperHalf[Int(byte) - 0x80]) }
        while text.last == " " { text.removeLast() }
        return String(text)
    }

    /// The short name in an entry of 32 bytes, with the letters in lower case that Windows NT marks so.
    static func short(_ entry: UnsafeRawBufferPointer) -> String {
        var base = Array(entry[0..<8])
        // 0xE5 means that an entry is free.
        if base[0] == 0x05 { base[0] = 0xE5 }
        let (name, suffix) = (text(base), text(entry[8..<11]))
        let marks = entry[12]
        let shownName = marks & 0x08 != 0 ? name.lowercased() : name
        let shownSuffix = marks & 0x10 != 0 ? suffix.lowercased() : suffix
        return suffix.isEmpty ? shownName : "\(shownName).\(shownSuffix)"
    }

    /// What the pieces of a long name know their entry by.
    static func checksum(_ entry: UnsafeRawBufferPointer) -> UInt8 {
        entry[0..<11].reduce(0) { ($0 >> 1 | $0 << 7) &+ $1 }
    }
}

/// A long name that is being put together from the pieces before its entry: the last comes first.
struct LongName {
    private static let pieceLimit = 20
    private var units: [UInt16] = []
    private var missing = 0
    private var checksum: UInt8 = 0
    /// Slot of the first piece.
    private(set) var start: UInt64 = 0

    /// Takes a piece; one that does not belong here ends the name.
    mutating func add(_ piece: UnsafeRawBufferPointer, at slot: UInt64) {
        let ordinal = Int(piece[0] & 0x3F)
        let isLast = piece[0] & 0x40 != 0
        if isLast, (1...Self.pieceLimit).contains(ordinal) {
            units = []
            checksum = piece[13]
            start = slot
        } else if isLast || ordinal == 0 || missing != ordinal + 1 || piece[13] != checksum {
            return clear()
        }
        missing = ordinal
        let own = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30].map { piece.littleEndian(UInt16.self, at: $0) }
        units.insert(contentsOf: own, at: 0)
    }

    mutating func clear() {
        units = []
        missing = 0
    }

    /// The name, if all of it was there and it belongs to this entry.
    func name(of entry: UnsafeRawBufferPointer) -> String? {
        guard missing == 1, checksum == FatNames.checksum(entry) else { return nil }
        let name = String(decoding: units.prefix { $0 != 0 }, as: UTF16.self)
        return name.isEmpty ? nil : name
    }
}

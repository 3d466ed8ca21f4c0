/// UTF-8 as QMP peers check it: noncharacters, surrogates and overlong forms are invalid, but U+0000 may be written in
/// two bytes (C0 80), as in "modified UTF-8".
enum ModifiedUTF8 {
    /// Decodes the sequence at the start of `bytes`, which is not empty. The length counts what belongs together: the
    /// first byte and the continuation bytes that it asks for, as far as they are there. The scalar is nil if invalid.
    static func decode(_ bytes: UnsafeRawBufferPointer.SubSequence) -> (scalar: Unicode.Scalar?, byteCount: Int) {
        let first = bytes[bytes.startIndex]
        if first < 0x80 { return (Unicode.Scalar(first), 1) }
        guard (0xC0..<0xFE).contains(first) else { return (nil, 1) }
        let expected = (~first).leadingZeroBitCount
        var code = UInt32(first & (0x7F >> expected))
        var length = 1
        while length < expected {
            let position = bytes.startIndex + length
            guard position < bytes.endIndex, bytes[position] & 0xC0 == 0x80 else { return (nil, length) }
            code = code << 6 | UInt32(bytes[position] & 0x3F)
            length += 1
        }
        if code == 0, expected == 2 { return ("\0", 2) }
        guard expected <= 4, code >= smallest[expected - 2] else { return (nil, length) }
        return (scalar(code), length)
    }

    /// The smallest code that needs 2, 3, 4 bytes.
    private static let smallest: [UInt32] = [0x80, 0x800, 0x10000]

    /// The scalar of a code point, unless it is a surrogate, a noncharacter or beyond Unicode.
    static func scalar(_ code: UInt32) -> Unicode.Scalar? {
        if (0xFDD0...0xFDEF).contains(code) || code & 0xFFFE == 0xFFFE { return nil }
        return Unicode.Scalar(code)
    }

    /// Bytes of a peer as a text for an error: up to the first NUL and `limit`, invalid sequences replaced.
    static func repaired(_ bytes: UnsafeRawBufferPointer.SubSequence, limit: Int) -> String {
        var rest = bytes.prefix(limit).prefix { $0 != 0 }
        var text = ""
        while !rest.isEmpty {
            let (scalar, byteCount) = decode(rest)
            text.unicodeScalars.append(scalar ?? "\u{FFFD}")
            rest = rest.dropFirst(byteCount)
        }
        return text
    }
}

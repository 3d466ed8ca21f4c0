/// The text of a string token: escapes resolved, UTF-8 checked.
enum JSONStringDecoder {
    /// `token` includes its quotes; the lexer has seen to it that both are there.
    static func decode(_ token: Slice<UnsafeRawBufferPointer>) throws(QMPError) -> String {
        let content = token.dropFirst().dropLast()
        if content.allSatisfy({ $0 < 0x80 && $0 != UInt8(ascii: "\\") }) {
            return String(decoding: content, as: UTF8.self)
        }
        var decoded: [UInt8] = []
        decoded.reserveCapacity(content.count)
        var position = content.startIndex
        while position < content.endIndex {
            let byte = content[position]
            if byte == UInt8(ascii: "\\") {
                try escape(token, &position, &decoded)
            } else if byte < 0x80 {
                decoded.append(byte)
                position += 1
            } else {
                let (scalar, byteCount) = ModifiedUTF8.decode(content[position...])
                guard let scalar else { throw problem("invalid UTF-8 sequence in string") }
                decoded.append(contentsOf: String(scalar).utf8)
                position += byteCount
            }
        }
        return String(decoding: decoded, as: UTF8.self)
    }

    private static func problem(_ text: String) -> QMPError {
        QMPError(.genericError, "JSON parse error, \(text)")
    }

    private static func escape(
        _ token: Slice<UnsafeRawBufferPointer>, _ position: inout Int, _ decoded: inout [UInt8]
    ) throws(QMPError) {
        let start = position
        // The lexer takes no closing quote behind a backslash, so one byte always follows.
        let letter = token[start + 1]
        position += 2
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "\\"), UInt8(ascii: "/"): decoded.append(letter)
        case UInt8(ascii: "b"): decoded.append(0x08)
        case UInt8(ascii: "f"): decoded.append(0x0C)
        case UInt8(ascii: "n"): decoded.append(0x0A)
        case UInt8(ascii: "r"): decoded.append(0x0D)
        case UInt8(ascii: "t"): decoded.append(0x09)
        case UInt8(ascii: "u"):
            guard let scalar = unicode(token[start...], &position) else {
                let quoted = ModifiedUTF8.repaired(token[start...], limit: 6)
                throw problem("\(quoted) is not a valid Unicode character")
            }
            decoded.append(contentsOf: String(scalar).utf8)
        default: throw problem("invalid escape sequence in string")
        }
    }

    /// The scalar of `\uXXXX`, or of two of them that are a surrogate pair, at the start of `bytes`.
    private static func unicode(_ bytes: Slice<UnsafeRawBufferPointer>, _ position: inout Int) -> Unicode.Scalar? {
        guard let first = codeUnit(bytes) else { return nil }
        position = bytes.startIndex + 6
        let rest = bytes.dropFirst(6)
        guard (0xD800...0xDBFF).contains(first), rest.starts(with: "\\u".utf8) else {
            return ModifiedUTF8.scalar(first)
        }
        guard let second = codeUnit(rest), (0xDC00...0xDFFF).contains(second) else { return nil }
        position += 6
        return ModifiedUTF8.scalar(0x10000 + (first & 0x3FF) << 10 + second & 0x3FF)
    }

    /// The four hexadecimal digits behind `\u`.
    private static func codeUnit(_ bytes: Slice<UnsafeRawBufferPointer>) -> UInt32? {
        let digits = bytes.dropFirst(2).prefix(4)
        guard digits.count == 4 else { return nil }
        var value: UInt32 = 0
        for digit in digits {
            switch digit {
            case 0x30...0x39: value = value << 4 | UInt32(digit - 0x30)
            case 0x41...0x46: value = value << 4 | UInt32(digit - 0x41 + 10)
            case 0x61...0x66: value = value << 4 | UInt32(digit - 0x61 + 10)
            default: return nil
            }
        }
        return value
    }
}

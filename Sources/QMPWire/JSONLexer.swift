/// What a token is. The text decides the rest.
enum JSONTokenKind: UInt8 {
    case leftBrace, rightBrace, leftBracket, rightBracket, colon, comma
    case integer, float, keyword, string
}

/// The states of the lexer and its one transition function: RFC 8259's tokens, plus single-quoted strings.
///
/// A byte that fits no token is an error, after which everything is skipped up to a structural character, a control
/// character other than tab, or one of the bytes 0xFE and 0xFF, which never occur in UTF-8: a client sends one to bring
/// the parser back to a known state.
enum JSONLexer {
    enum State: UInt8 {
        case start, recovery
        case doubleQuoted, doubleQuotedEscape, singleQuoted, singleQuotedEscape
        case sign, zero, digits, fractionStart, fraction, exponentStart, exponentSign, exponent
        case keyword
    }

    enum Step {
        /// The byte belongs to the token; go on in the state. In `start` and `recovery` there is no token.
        case take(State)
        /// The byte belongs to what follows: look at it again in the state.
        case again(State)
        /// The byte ends the token and belongs to it.
        case closes(JSONTokenKind)
        /// The token ended before the byte.
        case ended(JSONTokenKind)
        /// No token goes on like this. The byte is part of the stray text.
        case stray
    }

    @inline(__always)
    static func step(_ state: State, _ byte: UInt8) -> Step {
        switch state {
        case .start: start(byte)
        case .recovery: isResynchronizing(byte) ? .again(.start) : .take(.recovery)
        case .doubleQuoted: string(byte, quote: UInt8(ascii: "\""), .doubleQuoted, escape: .doubleQuotedEscape)
        case .singleQuoted: string(byte, quote: UInt8(ascii: "'"), .singleQuoted, escape: .singleQuotedEscape)
        case .doubleQuotedEscape: isStringByte(byte) ? .take(.doubleQuoted) : .stray
        case .singleQuotedEscape: isStringByte(byte) ? .take(.singleQuoted) : .stray
        case .keyword: (0x61...0x7A).contains(byte) ? .take(.keyword) : .ended(.keyword)
        default: number(state, byte)
        }
    }

    /// Whether the byte may stand in a string: no control character, no byte that UTF-8 never has.
    @inline(__always)
    static func isStringByte(_ byte: UInt8) -> Bool { byte >= 0x20 && byte < 0xFE }

    private static func start(_ byte: UInt8) -> Step {
        switch byte {
        case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"): .take(.start)
        case UInt8(ascii: "\""): .take(.doubleQuoted)
        case UInt8(ascii: "'"): .take(.singleQuoted)
        case UInt8(ascii: "{"): .closes(.leftBrace)
        case UInt8(ascii: "}"): .closes(.rightBrace)
        case UInt8(ascii: "["): .closes(.leftBracket)
        case UInt8(ascii: "]"): .closes(.rightBracket)
        case UInt8(ascii: ":"): .closes(.colon)
        case UInt8(ascii: ","): .closes(.comma)
        case UInt8(ascii: "-"): .take(.sign)
        case UInt8(ascii: "0"): .take(.zero)
        case 0x31...0x39: .take(.digits)
        case 0x61...0x7A: .take(.keyword)
        default: .stray
        }
    }

    private static func isResynchronizing(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "\t"): false
        case 0..<0x20, 0xFE, 0xFF: true
        case UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: "{"), UInt8(ascii: "}"): true
        case UInt8(ascii: ":"), UInt8(ascii: ","): true
        default: false
        }
    }

    private static func string(_ byte: UInt8, quote: UInt8, _ state: State, escape: State) -> Step {
        if byte == quote { return .closes(.string) }
        if byte == UInt8(ascii: "\\") { return .take(escape) }
        return isStringByte(byte) ? .take(state) : .stray
    }

    private static func number(_ state: State, _ byte: UInt8) -> Step {
        let isDigit = (0x30...0x39).contains(byte)
        let isExponent = byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E")
        switch state {
        case .sign:
            if byte == UInt8(ascii: "0") { return .take(.zero) }
            return isDigit ? .take(.digits) : .stray
        case .zero:
            // An exponent right after a lone zero ends the number, as in QEMU: `0e1` is refused.
            if byte == UInt8(ascii: ".") { return .take(.fractionStart) }
            return isDigit ? .stray : .ended(.integer)
        case .digits:
            if isDigit { return .take(.digits) }
            if byte == UInt8(ascii: ".") { return .take(.fractionStart) }
            return isExponent ? .take(.exponentStart) : .ended(.integer)
        case .fractionStart:
            return isDigit ? .take(.fraction) : .stray
        case .fraction:
            if isDigit { return .take(.fraction) }
            return isExponent ? .take(.exponentStart) : .ended(.float)
        case .exponentStart:
            if isDigit { return .take(.exponent) }
            return byte == UInt8(ascii: "-") || byte == UInt8(ascii: "+") ? .take(.exponentSign) : .stray
        case .exponentSign:
            return isDigit ? .take(.exponent) : .stray
        default:
            return isDigit ? .take(.exponent) : .ended(.float)
        }
    }
}

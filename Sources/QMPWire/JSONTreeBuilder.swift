/// A token and where its text stands in the message's text.
struct JSONToken: Sendable {
    let kind: JSONTokenKind
    let start: Int
    let end: Int
}

/// Builds the value of one complete message from its tokens, with QEMU's error texts.
///
/// Recursive; the parser has bounded the depth. The buffers are the parser's and outlive the builder.
struct JSONTreeBuilder {
    private let text: UnsafeRawBufferPointer
    private let tokens: UnsafeBufferPointer<JSONToken>
    private var position = 0

    init(text: UnsafeRawBufferPointer, tokens: UnsafeBufferPointer<JSONToken>) {
        self.text = text
        self.tokens = tokens
    }

    /// The value of all tokens. What follows a first error does not matter.
    mutating func build() -> Result<JSONValue, QMPError> {
        do throws(QMPError) {
            return .success(try value())
        } catch {
            return .failure(error)
        }
    }

    private func problem(_ text: String) -> QMPError {
        QMPError(.genericError, "JSON parse error, \(text)")
    }

    private mutating func next() throws(QMPError) -> JSONToken {
        guard position < tokens.count else { throw problem("premature EOI") }
        defer { position += 1 }
        return tokens[position]
    }

    private func peekedKind() throws(QMPError) -> JSONTokenKind {
        guard position < tokens.count else { throw problem("premature EOI") }
        return tokens[position].kind
    }

    private mutating func value() throws(QMPError) -> JSONValue {
        let token = try next()
        switch token.kind {
        case .leftBrace: return try object()
        case .leftBracket: return try array()
        case .string: return .string(try JSONStringDecoder.decode(bytes(of: token)))
        case .integer, .float: return try number(token)
        case .keyword: return try keyword(token)
        case .rightBrace, .rightBracket, .colon, .comma: throw problem("expecting value")
        }
    }

    private mutating func object() throws(QMPError) -> JSONValue {
        var object = JSONObject()
        if try peekedKind() == .rightBrace {
            position += 1
            return .object(object)
        }
        while true {
            try member(of: &object)
            switch try next().kind {
            case .rightBrace: return .object(object)
            case .comma: continue
            default: throw problem("expected separator in dict")
            }
        }
    }

    private mutating func member(of object: inout JSONObject) throws(QMPError) {
        guard case .string(let key) = try value() else { throw problem("key is not a string in object") }
        guard try next().kind == .colon else { throw problem("missing : in object pair") }
        guard object.insert(key, try value()) else { throw problem("duplicate key") }
    }

    private mutating func array() throws(QMPError) -> JSONValue {
        var elements: [JSONValue] = []
        if try peekedKind() == .rightBracket {
            position += 1
            return .array(elements)
        }
        while true {
            elements.append(try value())
            switch try next().kind {
            case .rightBracket: return .array(elements)
            case .comma: continue
            default: throw problem("expected separator in list")
            }
        }
    }

    private func keyword(_ token: JSONToken) throws(QMPError) -> JSONValue {
        let word = bytes(of: token)
        if word.elementsEqual("true".utf8) { return true }
        if word.elementsEqual("false".utf8) { return false }
        if word.elementsEqual("null".utf8) { return .null }
        // The limit is that of the whole text behind the prefix, as in QEMU.
        let limit = JSONParser.quotedByteCount - "invalid keyword '".utf8.count
        let quoted = ModifiedUTF8.repaired(word, limit: limit)
        throw problem("invalid keyword '\(quoted)" + (word.count < limit ? "'" : ""))
    }

    /// An integer becomes the first of int64, uint64 and double that holds it. QEMU makes an infinity of what no double
    /// holds, and prints it as no JSON at all; here it is an error.
    private func number(_ token: JSONToken) throws(QMPError) -> JSONValue {
        let digits = String(decoding: bytes(of: token), as: UTF8.self)
        if token.kind == .integer {
            if let value = Int64(digits) { return .integer(value) }
            if let value = UInt64(digits) { return .unsigned(value) }
        }
        guard let value = Double(digits), value.isFinite else { throw problem("number out of range") }
        return .double(value)
    }

    private func bytes(of token: JSONToken) -> Slice<UnsafeRawBufferPointer> { text[token.start..<token.end] }
}

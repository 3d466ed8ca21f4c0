/// An incremental parser of a stream of JSON values, with the framing, errors and recovery of QEMU's monitor.
///
/// A value is complete when its last bracket closes; a bare scalar needs a delimiter behind it. After an error the text
/// goes on to be read, so one bad message may give several. A value is built only when its message is complete, hence a
/// peer holds at most the limits' memory, whatever it sends. Results do not depend on how the bytes were cut.
public struct JSONParser: Sendable {
    /// Bounds of one message.
    public struct Limits: Sendable {
        /// Brackets and braces that may be open at once. The builder recurses that deep.
        public var nesting: Int
        /// Bytes of all tokens, white space not counted.
        public var tokenByteCount: Int
        public var tokenCount: Int

        /// QEMU's bounds by default: 1024 levels, 64 MiB, 2 Mi tokens.
        public init(nesting: Int = 1024, tokenByteCount: Int = 64 << 20, tokenCount: Int = 2 << 20) {
            self.nesting = nesting
            self.tokenByteCount = tokenByteCount
            self.tokenCount = tokenCount
        }
    }

    /// Stray text of a peer is repeated in an error up to this length.
    static let quotedByteCount = 1023
    /// Buffers are kept from message to message up to this size.
    private static let keptByteCount = 64 << 10

    private let limits: Limits
    private var state = JSONLexer.State.start
    /// The text of the message's tokens, one behind the other; the last may be unfinished.
    private var text: [UInt8] = []
    private var tokens: [JSONToken] = []
    private var tokenStart = 0
    private var openBraces = 0
    private var openBrackets = 0

    public init(limits: Limits = Limits()) { self.limits = limits }

    /// Reads on. `emit` gets each complete value and each error, in order.
    public mutating func feed(_ bytes: UnsafeRawBufferPointer, _ emit: (Result<JSONValue, QMPError>) -> Void) {
        var position = 0
        while position < bytes.count {
            if state == .doubleQuoted || state == .singleQuoted {
                position += takeStringRun(bytes[position...])
                checkTokenLength(emit)
                if position == bytes.count { return }
            }
            while !take(bytes[position], emit) {}
            checkTokenLength(emit)
            position += 1
        }
    }

    public mutating func feed(_ bytes: [UInt8], _ emit: (Result<JSONValue, QMPError>) -> Void) {
        bytes.withUnsafeBytes { feed($0, emit) }
    }

    /// The stream ended: what is unfinished becomes a value, if it is a whole scalar, or an error.
    public mutating func finish(_ emit: (Result<JSONValue, QMPError>) -> Void) {
        switch JSONLexer.step(state, 0) {
        case .ended(let kind): process(kind, emit)
        case .stray where state != .start: reportStray(emit)
        default: break
        }
        state = .start
        tokenStart = text.count
        if !tokens.isEmpty { build(emit) }
        reset()
    }

    /// The one value of a text.
    public static func parse(_ text: String, limits: Limits = Limits()) throws(QMPError) -> JSONValue {
        try parse(Array(text.utf8), limits: limits)
    }

    /// The one value of a text in UTF-8.
    public static func parse(_ bytes: [UInt8], limits: Limits = Limits()) throws(QMPError) -> JSONValue {
        var parser = JSONParser(limits: limits)
        var outcome: Result<JSONValue, QMPError>?
        let collect = { (next: Result<JSONValue, QMPError>) in
            switch outcome {
            case nil: outcome = next
            case .success: outcome = .failure(QMPError(.genericError, "Expecting at most one JSON value"))
            case .failure: break
            }
        }
        parser.feed(bytes, collect)
        parser.finish(collect)
        guard let outcome else { throw QMPError(.genericError, "Expecting a JSON value") }
        return try outcome.get()
    }

    // MARK: - Tokens

    /// Takes the bytes of a string up to its quote or escape at once; returns how many.
    private mutating func takeStringRun(_ bytes: Slice<UnsafeRawBufferPointer>) -> Int {
        let quote = state == .doubleQuoted ? UInt8(ascii: "\"") : UInt8(ascii: "'")
        let room = limits.tokenByteCount + 1 - (text.count - tokenStart)
        let run = bytes.prefix(max(0, room)).prefix {
            $0 != quote && $0 != UInt8(ascii: "\\") && JSONLexer.isStringByte($0)
        }
        text.append(contentsOf: run)
        return run.count
    }

    /// One step with the byte; whether it was consumed.
    private mutating func take(_ byte: UInt8, _ emit: (Result<JSONValue, QMPError>) -> Void) -> Bool {
        switch JSONLexer.step(state, byte) {
        case .take(let next):
            if next != .start, next != .recovery { text.append(byte) }
            state = next
            return true
        case .again(let next):
            state = next
            return false
        case .closes(let kind):
            text.append(byte)
            state = .start
            process(kind, emit)
            return true
        case .ended(let kind):
            state = .start
            process(kind, emit)
            return false
        case .stray:
            text.append(byte)
            reportStray(emit)
            return true
        }
    }

    private mutating func reportStray(_ emit: (Result<JSONValue, QMPError>) -> Void) {
        let stray = text.withUnsafeBytes {
            ModifiedUTF8.repaired($0[tokenStart...], limit: Self.quotedByteCount)
        }
        state = .recovery
        fail("JSON parse error, stray '\(stray)'", emit)
    }

    private mutating func checkTokenLength(_ emit: (Result<JSONValue, QMPError>) -> Void) {
        guard text.count - tokenStart > limits.tokenByteCount else { return }
        state = .start
        fail("JSON token size limit exceeded", emit)
    }

    // MARK: - Messages

    /// Adds the token whose text ends here to the message, and builds the value if it was the last.
    private mutating func process(_ kind: JSONTokenKind, _ emit: (Result<JSONValue, QMPError>) -> Void) {
        switch kind {
        case .leftBrace: openBraces += 1
        case .rightBrace: openBraces -= 1
        case .leftBracket: openBrackets += 1
        case .rightBracket: openBrackets -= 1
        default: break
        }
        if text.count >= limits.tokenByteCount { return fail("JSON token size limit exceeded", emit) }
        if tokens.count >= limits.tokenCount { return fail("JSON token count limit exceeded", emit) }
        if openBraces + openBrackets > limits.nesting { return fail("JSON nesting depth limit exceeded", emit) }
        tokens.append(JSONToken(kind: kind, start: tokenStart, end: text.count))
        tokenStart = text.count
        let isOpen = (openBraces > 0 || openBrackets > 0) && openBraces >= 0 && openBrackets >= 0
        if !isOpen { build(emit) }
    }

    private mutating func build(_ emit: (Result<JSONValue, QMPError>) -> Void) {
        let outcome = text.withUnsafeBytes { text in
            tokens.withUnsafeBufferPointer { tokens in
                var builder = JSONTreeBuilder(text: text, tokens: tokens)
                return builder.build()
            }
        }
        reset()
        emit(outcome)
    }

    private mutating func fail(_ reason: String, _ emit: (Result<JSONValue, QMPError>) -> Void) {
        reset()
        emit(.failure(QMPError(.genericError, reason)))
    }

    /// Forgets the message, not the lexer's state.
    private mutating func reset() {
        text.removeAll(keepingCapacity: text.capacity <= Self.keptByteCount)
        tokens.removeAll(keepingCapacity: tokens.capacity <= Self.keptByteCount / MemoryLayout<JSONToken>.stride)
        tokenStart = 0
        openBraces = 0
        openBrackets = 0
    }
}

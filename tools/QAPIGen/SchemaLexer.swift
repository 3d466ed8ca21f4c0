/// Where something stands in a schema file, for errors.
struct SourcePosition: Sendable {
    let file: String
    let line: Int
}

/// What is wrong with a schema, in the form in which compilers say it.
struct SchemaError: Error, CustomStringConvertible {
    let position: SourcePosition
    let message: String
    var description: String { "\(position.file):\(position.line): error: \(message)" }
}

/// A value of QAPI's notation: JSON with single quotes and comments.
indirect enum SchemaValue: Sendable {
    case string(String)
    case bool(Bool)
    case list([SchemaValue])
    case object([(key: String, value: SchemaValue)])

    var string: String? { if case .string(let text) = self { text } else { nil } }
    var list: [SchemaValue]? { if case .list(let values) = self { values } else { nil } }
    var members: [(key: String, value: SchemaValue)]? { if case .object(let members) = self { members } else { nil } }
    var isTrue: Bool { if case .bool(true) = self { true } else { false } }
    subscript(key: String) -> SchemaValue? { members?.first { $0.key == key }?.value }
}

/// A top-level expression with the comment block before it.
struct SchemaExpression: Sendable {
    let value: SchemaValue
    let position: SourcePosition
    /// Lines of the `##` block before it, without their `#`.
    let documentation: [String]
}

/// Reads the expressions of one file.
struct SchemaReader {
    private let file: String
    private let bytes: [UInt8]
    private var offset = 0
    private var line = 1
    private var documentation: [String] = []
    private var isInBlock = false

    init(file: String, text: [UInt8]) {
        self.file = file
        bytes = text
    }

    mutating func expressions() throws(SchemaError) -> [SchemaExpression] {
        var expressions: [SchemaExpression] = []
        while try skipSpace() != nil {
            let position = SourcePosition(file: file, line: line)
            let value = try value(depth: 0)
            guard case .object = value else {
                throw SchemaError(position: position, message: "expected an expression in braces")
            }
            expressions.append(SchemaExpression(value: value, position: position, documentation: documentation))
            documentation = []
        }
        return expressions
    }

    private func error(_ message: String) -> SchemaError {
        SchemaError(position: SourcePosition(file: file, line: line), message: message)
    }

    /// Goes to the next byte that means something, taking comments on the way.
    private mutating func skipSpace() throws(SchemaError) -> UInt8? {
        while offset < bytes.count {
            switch bytes[offset] {
            case UInt8(ascii: "\n"):
                line += 1
                offset += 1
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"):
                offset += 1
            case UInt8(ascii: "#"):
                takeComment()
            default:
                return bytes[offset]
            }
        }
        return nil
    }

    private mutating func takeComment() {
        let end = bytes[offset...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
        let text = String(decoding: bytes[(offset + 1)..<end], as: UTF8.self)
        offset = end
        if text == "#" {
            isInBlock.toggle()
            if isInBlock { documentation = [] }
        } else if isInBlock {
            documentation.append(text.hasPrefix(" ") ? String(text.dropFirst()) : text)
        }
    }

    private mutating func value(depth: Int) throws(SchemaError) -> SchemaValue {
        guard depth < 32 else { throw error("nested too deeply") }
        switch try skipSpace() {
        case UInt8(ascii: "'"): return .string(try string())
        case UInt8(ascii: "["):
            var values: [SchemaValue] = []
            try sequence(until: UInt8(ascii: "]")) { reader throws(SchemaError) in
                values.append(try reader.value(depth: depth + 1))
            }
            return .list(values)
        case UInt8(ascii: "{"):
            var members: [(key: String, value: SchemaValue)] = []
            try sequence(until: UInt8(ascii: "}")) { reader throws(SchemaError) in
                guard try reader.skipSpace() == UInt8(ascii: "'") else { throw reader.error("expected a name") }
                let key = try reader.string()
                guard !members.contains(where: { $0.key == key }) else {
                    throw reader.error("duplicate member '\(key)'")
                }
                guard try reader.skipSpace() == UInt8(ascii: ":") else { throw reader.error("expected ':'") }
                reader.offset += 1
                members.append((key, try reader.value(depth: depth + 1)))
            }
            return .object(members)
        case .some:
            for (word, value) in [("true", true), ("false", false)] where bytes[offset...].starts(with: word.utf8) {
                offset += word.utf8.count
                return .bool(value)
            }
            throw error("unexpected character")
        case nil:
            throw error("unexpected end of file")
        }
    }

    private mutating func sequence(
        until end: UInt8, _ element: (inout SchemaReader) throws(SchemaError) -> Void
    ) throws(SchemaError) {
        offset += 1
        if try skipSpace() == end {
            offset += 1
            return
        }
        while true {
            try element(&self)
            switch try skipSpace() {
            case UInt8(ascii: ","): offset += 1
            case end:
                offset += 1
                return
            default: throw error("expected ',' or the end of the list")
            }
        }
    }

    private mutating func string() throws(SchemaError) -> String {
        let start = offset + 1
        guard let end = bytes[start...].firstIndex(of: UInt8(ascii: "'")) else { throw error("unterminated string") }
        guard !bytes[start..<end].contains(UInt8(ascii: "\n")) else { throw error("unterminated string") }
        offset = end + 1
        return String(decoding: bytes[start..<end], as: UTF8.self)
    }
}

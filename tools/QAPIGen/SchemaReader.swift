/// A value of QAPI's notation: JSON with single quotes and without numbers.
struct Node {
    enum Value {
        case object([(key: String, node: Node)])
        case array([Node])
        case string(String)
        case bool(Bool)
    }

    var value: Value
    var location: Location

    /// For messages: what kind of value it is.
    var kind: String {
        switch value {
        case .object: "an object"
        case .array: "an array"
        case .string: "a string"
        case .bool: "a boolean"
        }
    }
}

/// One expression at the top level of a schema file, with the documentation block before it.
struct Expression {
    var node: Node
    var documentation: Documentation?
}

/// Splits a schema file into its expressions.
struct SchemaReader {
    private let file: String
    private let text: [UInt8]
    private var position = 0
    private var line = 1

    init(file: String, text: [UInt8]) {
        self.file = file
        self.text = text
    }

    static func read(file: String, text: [UInt8]) throws -> [Expression] {
        var reader = SchemaReader(file: file, text: text)
        return try reader.expressions()
    }

    private var location: Location { Location(file: file, line: line) }

    private mutating func expressions() throws -> [Expression] {
        var found: [Expression] = []
        var documentation: Documentation?
        while true {
            skipBlanks()
            guard position < text.count else { break }
            if text[position] == UInt8(ascii: "#") {
                if let block = try comment() {
                    documentation = block
                }
                continue
            }
            guard text[position] == UInt8(ascii: "{") else {
                throw SchemaError(location, "expected '{' at the start of an expression")
            }
            found.append(Expression(node: try value(), documentation: documentation))
            documentation = nil
        }
        return found
    }

    private mutating func skipBlanks() {
        while position < text.count {
            switch text[position] {
            case UInt8(ascii: "\n"): line += 1
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): break
            default: return
            }
            position += 1
        }
    }

    private mutating func skipBlanksAndComments() {
        skipBlanks()
        while position < text.count, text[position] == UInt8(ascii: "#") {
            _ = restOfLine()
            skipBlanks()
        }
    }

    /// The line from here on without its end; the position moves behind the end.
    private mutating func restOfLine() -> String {
        let start = position
        while position < text.count, text[position] != UInt8(ascii: "\n") { position += 1 }
        let content = String(decoding: text[start..<position], as: UTF8.self)
        if position < text.count {
            position += 1
            line += 1
        }
        return content
    }

    /// A comment line, or a documentation block between two lines `##`.
    private mutating func comment() throws -> Documentation? {
        let start = location
        guard restOfLine().trimmed == "##" else { return nil }
        var lines: [(text: String, location: Location)] = []
        while true {
            skipBlanks()
            let here = location
            guard position < text.count, text[position] == UInt8(ascii: "#") else {
                throw SchemaError(start, "documentation block has no closing '##'")
            }
            let content = restOfLine().trimmed
            if content == "##" { break }
            lines.append((String(content.dropFirst()), here))
        }
        return Documentation(lines: lines, location: start)
    }

    private mutating func value() throws -> Node {
        skipBlanksAndComments()
        let start = location
        guard position < text.count else { throw SchemaError(start, "expected a value at the end of the file") }
        switch text[position] {
        case UInt8(ascii: "{"): return Node(value: .object(try members()), location: start)
        case UInt8(ascii: "["): return Node(value: .array(try elements()), location: start)
        case UInt8(ascii: "'"), UInt8(ascii: "\""): return Node(value: .string(try string()), location: start)
        default:
            let word = keyword()
            switch word {
            case "true": return Node(value: .bool(true), location: start)
            case "false": return Node(value: .bool(false), location: start)
            default: throw SchemaError(start, "expected '{', '[', a string or a boolean, not '\(word)'")
            }
        }
    }

    private mutating func members() throws -> [(key: String, node: Node)] {
        position += 1
        var found: [(key: String, node: Node)] = []
        if try closes(with: "}") { return found }
        while true {
            skipBlanksAndComments()
            let start = location
            guard position < text.count, text[position] == UInt8(ascii: "'") || text[position] == UInt8(ascii: "\"")
            else { throw SchemaError(start, "expected a member name in quotes") }
            let key = try string()
            if found.contains(where: { $0.key == key }) { throw SchemaError(start, "duplicate key '\(key)'") }
            skipBlanksAndComments()
            guard position < text.count, text[position] == UInt8(ascii: ":") else {
                throw SchemaError(location, "expected ':' after '\(key)'")
            }
            position += 1
            found.append((key, try value()))
            if try closesOrContinues(with: "}") { return found }
        }
    }

    private mutating func elements() throws -> [Node] {
        position += 1
        var found: [Node] = []
        if try closes(with: "]") { return found }
        while true {
            found.append(try value())
            if try closesOrContinues(with: "]") { return found }
        }
    }

    private mutating func closes(with bracket: Unicode.Scalar) throws -> Bool {
        skipBlanksAndComments()
        guard position < text.count else { throw SchemaError(location, "expected '\(bracket)'") }
        guard text[position] == UInt8(ascii: bracket) else { return false }
        position += 1
        return true
    }

    private mutating func closesOrContinues(with bracket: Unicode.Scalar) throws -> Bool {
        if try closes(with: bracket) { return true }
        guard text[position] == UInt8(ascii: ",") else {
            throw SchemaError(location, "expected ',' or '\(bracket)'")
        }
        position += 1
        return false
    }

    private mutating func string() throws -> String {
        let start = location
        let quote = text[position]
        position += 1
        let first = position
        while position < text.count, text[position] != quote {
            guard text[position] != UInt8(ascii: "\n"), text[position] != UInt8(ascii: "\\") else {
                throw SchemaError(start, "a string must end on its line and has no escapes")
            }
            position += 1
        }
        guard position < text.count else { throw SchemaError(start, "string has no closing quote") }
        defer { position += 1 }
        return String(decoding: text[first..<position], as: UTF8.self)
    }

    private mutating func keyword() -> String {
        let first = position
        while position < text.count, !" \t\r\n,:{}[]#'\"".utf8.contains(text[position]) { position += 1 }
        if position == first { position += 1 }
        return String(decoding: text[first..<position], as: UTF8.self)
    }
}

extension StringProtocol {
    /// Without blanks at both ends.
    var trimmed: String {
        let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0 == "\r" }
        guard let first = firstIndex(where: { !isBlank($0) }), let last = lastIndex(where: { !isBlank($0) }) else {
            return ""
        }
        return String(self[first...last])
    }
}

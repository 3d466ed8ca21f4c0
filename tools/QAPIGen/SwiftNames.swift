/// How names of the schema are written in Swift.
enum SwiftNames {
    private static let keywords: Set<String> = [
        "as", "break", "case", "catch", "class", "continue", "default", "defer", "do", "else", "enum", "extension",
        "fallthrough", "false", "for", "func", "if", "import", "in", "init", "internal", "is", "let", "nil", "operator",
        "private", "protocol", "public", "repeat", "return", "self", "static", "struct", "subscript", "super", "switch",
        "throw", "throws", "true", "try", "var", "where", "while",
    ]

    /// `block-export-add` as `blockExportAdd`; `ALL_CAPS` and names that begin with a digit are made fit.
    static func member(_ name: String) -> String {
        let words = words(of: name)
        guard let first = words.first else { return "_" }
        var text = lowered(first) + words.dropFirst().map(capitalised).joined()
        if text.first?.isNumber ?? true { text = "_" + text }
        return keywords.contains(text) ? "`\(text)`" : text
    }

    /// `block-export-add` as `BlockExportAdd`; names of types stay as they are.
    static func type(_ name: String) -> String {
        words(of: name).map(capitalised).joined()
    }

    private static func words(of name: String) -> [String] {
        var words = name.split { "-_. ".contains($0) }.map(String.init)
        if name.allSatisfy({ $0.isUppercase || $0 == "_" || $0.isNumber }) { words = words.map { $0.lowercased() } }
        return words
    }

    private static func capitalised(_ word: String) -> String {
        word.prefix(1).uppercased() + word.dropFirst()
    }

    private static func lowered(_ word: String) -> String {
        word.prefix(1).lowercased() + word.dropFirst()
    }

    /// A schema type in Swift.
    static func swiftType(_ reference: TypeReference, openEnums: [String: String]) -> String {
        let name: String
        switch reference.name {
        case "str": name = "Swift.String"
        case "int", "int64": name = "Int64"
        case "uint64", "size": name = "UInt64"
        case "uint32": name = "UInt32"
        case "uint16": name = "UInt16"
        case "number": name = "Double"
        case "bool": name = "Bool"
        case "any": name = "JSONValue"
        case "null": name = "JSONNull"
        default: name = openEnums[reference.name] != nil ? "Swift.String" : type(reference.name)
        }
        return reference.isList ? "[\(name)]" : name
    }
}

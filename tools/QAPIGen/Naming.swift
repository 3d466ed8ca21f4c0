/// How QAPI's names become Swift's.
enum Naming {
    /// Names of types that Swift's own would hide.
    private static let reservedTypes: Set<String> = [
        "String", "Int", "Bool", "Double", "Array", "Set", "Dictionary", "Optional", "Error", "Result", "Any", "Self",
        "Type", "Protocol", "Character",
    ]
    private static let keywords: Set<String> = [
        "associatedtype", "as", "break", "case", "catch", "class", "continue", "default", "defer", "deinit", "do",
        "else",
        "enum", "extension", "fallthrough", "false", "fileprivate", "for", "func", "guard", "if", "import", "in",
        "init",
        "inout", "internal", "is", "let", "nil", "operator", "precedencegroup", "private", "protocol", "public",
        "repeat", "rethrows", "return", "self", "static", "struct", "subscript", "super", "switch", "throw", "throws",
        "true", "try", "typealias", "var", "where", "while",
    ]
    /// Members that the generated types have for other reasons.
    private static let reservedMembers: Set<String> = ["json", "branch", "write"]

    static func isValid(_ name: String) -> Bool {
        !name.isEmpty
            && name.utf8.allSatisfy { byte in
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                    || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                    || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_")
            }
    }

    /// The Swift name of a type that the schema defines.
    static func type(_ name: String) -> String {
        let joined = words(name).enumerated().map { $0.offset == 0 ? $0.element : capitalized($0.element) }.joined()
        return reservedTypes.contains(joined) ? "QAPI" + joined : joined
    }

    static func type(_ reference: TypeReference) -> String {
        switch reference {
        case .named(let name): Schema.builtins[name]?.swift ?? type(name)
        case .list(let element): "[\(type(element))]"
        }
    }

    /// `node-name`, `backing_file` become `nodeName`, `backingFile`; keywords get backticks.
    static func member(_ name: String) -> String {
        let identifier = camelCase(name)
        if reservedMembers.contains(identifier) { return identifier + "Member" }
        return escaped(identifier)
    }

    /// As a member. Where a value may be absent as well, `none` must be written `.some(.none)`.
    static func enumerationCase(_ name: String) -> String {
        let identifier = camelCase(name)
        if identifier == "rawValue" || identifier == "allCases" { return identifier + "Case" }
        return escaped(identifier)
    }

    /// `snapshot-save`, `JOB_STATUS_CHANGE` become `SnapshotSave`, `JobStatusChange`.
    static func command(_ name: String) -> String {
        words(name).map { capitalized($0.uppercased() == $0 ? $0.lowercased() : $0) }.joined()
    }

    static func escaped(_ identifier: String) -> String {
        keywords.contains(identifier) ? "`\(identifier)`" : identifier
    }

    private static func camelCase(_ name: String) -> String {
        let parts = words(name)
        var result = ""
        for (index, part) in parts.enumerated() {
            result += index == 0 ? lowered(part) : capitalized(part)
        }
        guard let first = result.utf8.first else { return "_" }
        let startsWithDigit = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(first)
        // Digits are kept apart: `2_5` must not become the same as `25`.
        return startsWithDigit ? "_" + parts.joined(separator: "_") : result
    }

    private static func words(_ name: String) -> [String] {
        name.split(whereSeparator: { $0 == "-" || $0 == "_" }).map(String.init)
    }

    private static func capitalized(_ word: String) -> String { word.prefix(1).uppercased() + word.dropFirst() }

    /// `QMPCapability` is left alone only as a type; as a case an all-capitals word is lowered whole.
    private static func lowered(_ word: String) -> String {
        word.uppercased() == word ? word.lowercased() : word.prefix(1).lowercased() + word.dropFirst()
    }
}

import QMPWire

/// What can be told from one SchemaInfo object.
enum SchemaEntry {
    private static let builtins: [String: String] = [
        "str": "string", "int": "int", "number": "number", "bool": "boolean", "null": "null", "any": "value",
    ]

    static func isBuiltin(_ name: String) -> Bool { builtins[name] != nil }

    /// Commands and events, from which everything else is reached.
    static func isRoot(_ entry: JSONValue) -> Bool {
        entry["meta-type"]?.stringValue == "command" || entry["meta-type"]?.stringValue == "event"
    }

    /// Built-in types and arrays, which no schema file defines.
    static func derived(_ name: String) -> JSONValue? {
        if let kind = builtins[name] {
            return ["name": .string(name), "meta-type": "builtin", "json-type": .string(kind)]
        }
        guard name.hasPrefix("["), name.hasSuffix("]") else { return nil }
        let element = String(name.dropFirst().dropLast())
        return ["name": .string(name), "meta-type": "array", "element-type": .string(element)]
    }

    /// Names of the types that an entry uses, in its order.
    static func references(of entry: JSONValue) -> [String] {
        var names = ["arg-type", "ret-type", "element-type"].compactMap { entry[$0]?.stringValue }
        for key in ["members", "variants"] {
            names += (entry[key]?.arrayValue ?? []).compactMap { $0["type"]?.stringValue }
        }
        return names
    }

    /// The entry with its own name, unless it is a command's or event's, and all names of types replaced.
    static func renaming(_ entry: JSONValue, _ newName: (String) -> String) -> JSONValue {
        guard var object = entry.objectValue else { return entry }
        func replace(_ key: String, in object: inout JSONObject) {
            if let name = object[key]?.stringValue { object[key] = .string(newName(name)) }
        }
        if !isRoot(entry) { replace("name", in: &object) }
        for key in ["arg-type", "ret-type", "element-type"] { replace(key, in: &object) }
        for key in ["members", "variants"] {
            guard let members = object[key]?.arrayValue else { continue }
            object[key] = .array(
                members.map { member in
                    guard var member = member.objectValue else { return member }
                    replace("type", in: &member)
                    return .object(member)
                })
        }
        return .object(object)
    }
}

/// Collects entries and, once each, all types that they use.
struct TypeCollector {
    private(set) var entries: [JSONValue] = []
    private var seen: Set<String> = []
    private var pending: [String] = []
    private let lookUp: (String) -> JSONValue?

    init(_ lookUp: @escaping (String) -> JSONValue?) { self.lookUp = lookUp }

    mutating func add(_ entry: JSONValue) {
        entries.append(entry)
        for name in SchemaEntry.references(of: entry) where seen.insert(name).inserted { pending.append(name) }
    }

    mutating func addPending() {
        var index = 0
        while index < pending.count {
            if let entry = lookUp(pending[index]) { add(entry) }
            index += 1
        }
    }
}

/// Gives types numbers for names, in the order in which they are met.
struct TypeRenaming {
    private var numbers: [String: Int] = [:]

    func apply(to entries: [JSONValue]) -> [JSONValue] {
        var copy = self
        return entries.map { SchemaEntry.renaming($0) { copy.name(for: $0) } }
    }

    private mutating func name(for name: String) -> String {
        if SchemaEntry.isBuiltin(name) { return name }
        if name.hasPrefix("["), name.hasSuffix("]") {
            return "[\(self.name(for: String(name.dropFirst().dropLast())))]"
        }
        if let number = numbers[name] { return String(number) }
        numbers[name] = numbers.count
        return String(numbers.count - 1)
    }
}

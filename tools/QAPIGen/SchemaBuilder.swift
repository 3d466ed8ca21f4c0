/// Turns expressions into definitions.
struct SchemaBuilder {
    private(set) var schema = Schema()

    /// Adds a file's expressions. `owner` is the index of its folder.
    mutating func add(file: String, text: [UInt8], owner: Int) throws {
        for expression in try SchemaReader.read(file: file, text: text) {
            try add(expression, owner: owner)
        }
    }

    private mutating func add(_ expression: Expression, owner: Int) throws {
        let fields = try Fields(expression.node, "expression")
        if fields.has("include") || fields.has("pragma") { return }
        if fields.has("branch") {
            try fields.allow(["branch", "value", "data"])
            let branch = BranchDefinition(
                union: try fields.string("branch"), value: try fields.string("value"), type: try fields.string("data"))
            schema.branches.append((branch, fields.location, owner))
            return
        }
        guard let keyword = Self.keywords.first(where: fields.has) else {
            throw SchemaError(
                fields.location,
                "expression is none of \(Self.keywords.joined(separator: ", ")), branch, include, pragma")
        }
        let name = try fields.string(keyword)
        guard Naming.isValid(name) else { throw SchemaError(fields.location, "'\(name)' is not a valid name") }
        let documentation = expression.documentation
        if let documentation, documentation.symbol != name {
            throw SchemaError(
                documentation.location, "documentation is for '\(documentation.symbol)', definition is for '\(name)'")
        }
        let definition = Definition(
            name: name, kind: try kind(keyword, fields), features: try fields.names("features"),
            documentation: documentation, location: fields.location, owner: owner)
        try schema.add(definition)
    }

    private static let keywords = ["enum", "struct", "union", "alternate", "command", "event"]

    private func kind(_ keyword: String, _ fields: Fields) throws -> Definition.Kind {
        switch keyword {
        case "enum":
            try fields.allow(["enum", "data", "open", "features", "prefix"])
            return .enumeration(
                EnumerationType(values: try fields.values("data"), isOpen: try fields.bool("open") ?? false))
        case "struct":
            try fields.allow(["struct", "data", "base", "features"])
            return .structure(
                StructureType(base: try fields.optionalString("base"), members: try fields.members("data")))
        case "union":
            try fields.allow(["union", "data", "base", "discriminator", "open", "wrapped", "features"])
            return .union(try union(fields))
        case "alternate":
            try fields.allow(["alternate", "data", "features"])
            let branches = try fields.object("data").map {
                AlternateType.Branch(name: $0.key, type: try Fields.type($0.node), location: $0.node.location)
            }
            guard branches.count > 1 else {
                throw SchemaError(fields.location, "an alternate has two branches or more")
            }
            return .alternate(AlternateType(branches: branches))
        case "command":
            try fields.allow([
                "command", "data", "boxed", "returns", "allow-oob", "allow-preconfig", "coroutine", "features", "gen",
                "success-response", "returns-json",
            ])
            return .command(
                CommandDefinition(
                    arguments: try fields.arguments("data"), returns: try fields.optionalReference("returns"),
                    allowsOutOfBand: try fields.bool("allow-oob") ?? false,
                    returnsJSON: try fields.bool("returns-json") ?? false))
        default:
            try fields.allow(["event", "data", "boxed", "features"])
            return .event(try fields.arguments("data"))
        }
    }

    private func union(_ fields: Fields) throws -> UnionType {
        let base: UnionType.Base =
            switch try fields.require("base").value {
            case .string(let name): .named(name)
            case .object: .inline(try fields.members("base"))
            default: throw SchemaError(fields.location, "'base' must be a type's name or an object")
            }
        let branches = try fields.object("data").map {
            UnionType.Branch(value: $0.key, type: try Fields.type($0.node), location: $0.node.location)
        }
        let isOpen = try fields.bool("open") ?? false
        if isOpen, let branch = branches.first {
            throw SchemaError(branch.location, "an open union gets its branches by 'branch' expressions only")
        }
        return UnionType(
            base: base, discriminator: try fields.string("discriminator"), branches: branches, isOpen: isOpen,
            wrapper: try fields.optionalString("wrapped"))
    }
}

/// The members of one expression, read by name.
private struct Fields {
    let members: [(key: String, node: Node)]
    let location: Location

    init(_ node: Node, _ what: String) throws {
        guard case .object(let members) = node.value else {
            throw SchemaError(node.location, "\(what) must be an object, not \(node.kind)")
        }
        self.members = members
        location = node.location
    }

    func has(_ key: String) -> Bool { members.contains { $0.key == key } }

    private func node(_ key: String) -> Node? { members.first { $0.key == key }?.node }

    func allow(_ keys: Set<String>) throws {
        if let unknown = members.first(where: { !keys.contains($0.key) }) {
            throw SchemaError(unknown.node.location, "unknown key '\(unknown.key)'")
        }
    }

    func require(_ key: String) throws -> Node {
        guard let node = node(key) else { throw SchemaError(location, "key '\(key)' is missing") }
        return node
    }

    func string(_ key: String) throws -> String {
        let node = try require(key)
        guard case .string(let text) = node.value else {
            throw SchemaError(node.location, "'\(key)' must be a string, not \(node.kind)")
        }
        return text
    }

    func optionalString(_ key: String) throws -> String? { has(key) ? try string(key) : nil }

    func bool(_ key: String) throws -> Bool? {
        guard let node = node(key) else { return nil }
        guard case .bool(let value) = node.value else {
            throw SchemaError(node.location, "'\(key)' must be a boolean, not \(node.kind)")
        }
        return value
    }

    func object(_ key: String) throws -> [(key: String, node: Node)] {
        let node = try require(key)
        guard case .object(let members) = node.value else {
            throw SchemaError(node.location, "'\(key)' must be an object, not \(node.kind)")
        }
        return members
    }

    /// A list of names, each plain or `{'name': …}`.
    func names(_ key: String) throws -> [String] {
        guard has(key) else { return [] }
        return try values(key).map(\.name)
    }

    func values(_ key: String) throws -> [EnumerationType.Value] {
        let node = try require(key)
        guard case .array(let elements) = node.value else {
            throw SchemaError(node.location, "'\(key)' must be an array, not \(node.kind)")
        }
        var found: [EnumerationType.Value] = []
        for element in elements {
            let value: EnumerationType.Value
            switch element.value {
            case .string(let name): value = .init(name: name, features: [], location: element.location)
            case .object:
                let fields = try Fields(element, "value")
                try fields.allow(["name", "features"])
                value = .init(
                    name: try fields.string("name"), features: try fields.names("features"), location: element.location)
            default: throw SchemaError(element.location, "a value of '\(key)' must be a string or an object")
            }
            if found.contains(where: { $0.name == value.name }) {
                throw SchemaError(element.location, "'\(value.name)' stands twice in '\(key)'")
            }
            found.append(value)
        }
        return found
    }

    static func type(_ node: Node) throws -> String {
        switch node.value {
        case .string(let name): return name
        case .object:
            let fields = try Fields(node, "branch")
            try fields.allow(["type"])
            return try fields.string("type")
        default: throw SchemaError(node.location, "a branch must be a type's name, not \(node.kind)")
        }
    }

    static func reference(_ node: Node) throws -> TypeReference {
        switch node.value {
        case .string(let name): return .named(name)
        case .array(let elements):
            guard elements.count == 1, let element = elements.first else {
                throw SchemaError(node.location, "an array type has exactly one element type")
            }
            return .list(try reference(element))
        default: throw SchemaError(node.location, "a type must be a name or an array of one name")
        }
    }

    func optionalReference(_ key: String) throws -> TypeReference? { try node(key).map(Self.reference) }

    func members(_ key: String) throws -> [Member] {
        try object(key).map { key, node in
            let isOptional = key.hasPrefix("*")
            let name = isOptional ? String(key.dropFirst()) : key
            guard Naming.isValid(name) else { throw SchemaError(node.location, "'\(name)' is not a valid member name") }
            guard case .object = node.value else {
                return Member(
                    name: name, type: try Self.reference(node), isOptional: isOptional, features: [],
                    location: node.location)
            }
            let fields = try Fields(node, "member")
            try fields.allow(["type", "features"])
            return Member(
                name: name, type: try Self.reference(try fields.require("type")), isOptional: isOptional,
                features: try fields.names("features"), location: node.location)
        }
    }

    func arguments(_ key: String) throws -> Arguments {
        guard let node = node(key) else { return .none }
        switch node.value {
        case .string(let name): return .named(name)
        case .object:
            let members = try members(key)
            return members.isEmpty ? .none : .inline(members)
        default: throw SchemaError(node.location, "'\(key)' must be a type's name or an object")
        }
    }
}

/// A type as a member names it.
indirect enum TypeReference: Equatable {
    case named(String)
    case list(TypeReference)

    /// QAPI's own spelling for introspection and the manual.
    var spelling: String {
        switch self {
        case .named(let name): name
        case .list(let element): "[\(element.spelling)]"
        }
    }

    /// The type's name, or that of the innermost element.
    var name: String {
        switch self {
        case .named(let name): name
        case .list(let element): element.name
        }
    }
}

struct Member {
    var name: String
    var type: TypeReference
    var isOptional: Bool
    var features: [String]
    var location: Location
}

struct EnumerationType {
    struct Value {
        var name: String
        var features: [String]
        var location: Location
    }
    var values: [Value]
    /// Its values are those of the branches of the open unions that it discriminates.
    var isOpen: Bool
}

struct StructureType {
    var base: String?
    var members: [Member]
}

struct UnionType {
    enum Base {
        case named(String)
        case inline([Member])
    }
    struct Branch {
        var value: String
        var type: String
        var location: Location
    }
    var base: Base
    var discriminator: String
    var branches: [Branch]
    /// Modules add branches.
    var isOpen: Bool
    /// The member of an open union that holds the branch's members; nil if they stand beside the others.
    var wrapper: String?
}

struct AlternateType {
    struct Branch {
        var name: String
        var type: String
        var location: Location
    }
    var branches: [Branch]
}

/// Arguments of a command or members of an event.
enum Arguments {
    case none
    case inline([Member])
    case named(String)
}

struct CommandDefinition {
    var arguments: Arguments
    var returns: TypeReference?
    var allowsOutOfBand: Bool
    /// Handlers return JSON as it goes over the wire instead of the generated type.
    var returnsJSON: Bool
}

/// A branch that is added to an open union.
struct BranchDefinition {
    var union: String
    var value: String
    var type: String
}

/// One named thing of the schema.
struct Definition {
    enum Kind {
        case enumeration(EnumerationType)
        case structure(StructureType)
        case union(UnionType)
        case alternate(AlternateType)
        case command(CommandDefinition)
        case event(Arguments)
    }

    var name: String
    var kind: Kind
    var features: [String]
    var documentation: Documentation?
    var location: Location
    /// Index of the folder that it comes from.
    var owner: Int

    var isType: Bool {
        switch kind {
        case .command, .event: false
        default: true
        }
    }
}

/// The definitions of one or several schema folders.
struct Schema {
    /// In the order of the files and within them.
    var definitions: [Definition] = []
    var branches: [(branch: BranchDefinition, location: Location, owner: Int)] = []
    private(set) var types: [String: Int] = [:]

    static let builtins: [String: (swift: String, json: String)] = [
        "str": ("Swift.String", "string"), "bool": ("Bool", "boolean"), "number": ("Double", "number"),
        "int": ("Int64", "int"), "int8": ("Int8", "int"), "int16": ("Int16", "int"), "int32": ("Int32", "int"),
        "int64": ("Int64", "int"), "uint8": ("UInt8", "int"), "uint16": ("UInt16", "int"),
        "uint32": ("UInt32", "int"), "uint64": ("UInt64", "int"), "size": ("UInt64", "int"),
        "any": ("JSONValue", "value"), "null": ("JSONNull", "null"),
    ]

    mutating func add(_ definition: Definition) throws {
        let clash = definitions.first { $0.name == definition.name && $0.isType == definition.isType }
        if let clash {
            throw SchemaError(
                definition.location,
                "'\(definition.name)' is already defined at \(clash.location.file):\(clash.location.line)")
        }
        if definition.isType, Self.builtins[definition.name] != nil {
            throw SchemaError(definition.location, "'\(definition.name)' is a built-in type")
        }
        if definition.isType { types[definition.name] = definitions.count }
        definitions.append(definition)
    }

    func type(_ name: String) -> Definition? { types[name].map { definitions[$0] } }

    /// Members of a struct, those of its bases first.
    func members(ofStructure name: String) -> [Member] {
        guard let definition = type(name), case .structure(let structure) = definition.kind else { return [] }
        return (structure.base.map(members(ofStructure:)) ?? []) + structure.members
    }

    /// Members that all branches of a union share, the discriminator among them.
    func baseMembers(of union: UnionType) -> [Member] {
        switch union.base {
        case .named(let name): members(ofStructure: name)
        case .inline(let members): members
        }
    }
}

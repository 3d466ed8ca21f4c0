/// A type as a schema writes it: a name, or a list of it.
struct TypeReference: Sendable, Equatable {
    let name: String
    let isList: Bool
}

/// A member of an object.
struct Member: Sendable {
    let name: String
    let type: TypeReference
    let isOptional: Bool
}

/// What a schema declares.
enum Declaration: Sendable {
    case enumeration(values: [String])
    case structure(base: String?, members: [Member])
    /// A union whose branches are given here.
    case union(base: [Member], discriminator: String, branches: [(value: String, type: String)])
    /// A union whose branches are declared by modules; with a wrapper, inside that member.
    case openUnion(base: [Member], discriminator: String, wrapper: String?)
    case alternate(branches: [Member])
    case command(arguments: Arguments, returns: TypeReference?, allowsOutOfBand: Bool)
    case event(arguments: Arguments)
    case branch(union: String, value: String, type: String?)
}

/// The data of a command or event.
enum Arguments: Sendable {
    case none
    case members([Member])
    case type(String)
}

struct Definition: Sendable {
    let name: String
    let declaration: Declaration
    let position: SourcePosition
    let documentation: [String]
}

/// All definitions of some schema folders.
struct Schema: Sendable {
    static let builtins = [
        "str", "int", "int64", "uint64", "uint32", "uint16", "size", "number", "bool", "any", "null",
    ]

    private(set) var definitions: [Definition] = []
    private var byName: [String: Int] = [:]
    /// Discriminators of open unions: enumerations whose values the modules bring.
    private(set) var openEnums: [String: String] = [:]

    mutating func add(_ definition: Definition) throws(SchemaError) {
        if case .branch = definition.declaration {
            definitions.append(definition)
            return
        }
        if byName[definition.name] != nil || Self.builtins.contains(definition.name) {
            throw SchemaError(position: definition.position, message: "'\(definition.name)' is declared already")
        }
        byName[definition.name] = definitions.count
        definitions.append(definition)
        if case .openUnion(let base, let discriminator, _) = definition.declaration,
            let member = base.first(where: { $0.name == discriminator })
        {
            openEnums[member.type.name] = definition.name
        }
    }

    func definition(_ name: String) -> Definition? { byName[name].map { definitions[$0] } }

    func isKnown(_ name: String) -> Bool {
        Self.builtins.contains(name) || byName[name] != nil || openEnums[name] != nil
    }

    /// All members of a struct, those of its bases first.
    func allMembers(of name: String) -> [Member] {
        guard case .structure(let base, let members) = definition(name)?.declaration else { return [] }
        return (base.map { allMembers(of: $0) } ?? []) + members
    }

    /// Every name that is used is declared, and every union's discriminator is one of its members.
    func check() throws(SchemaError) {
        for definition in definitions {
            func use(_ name: String) throws(SchemaError) {
                guard isKnown(name) else {
                    throw SchemaError(position: definition.position, message: "unknown type '\(name)'")
                }
            }
            func use(_ members: [Member]) throws(SchemaError) {
                for member in members { try use(member.type.name) }
            }
            func use(_ arguments: Arguments) throws(SchemaError) {
                switch arguments {
                case .none: break
                case .members(let members): try use(members)
                case .type(let name): try use(name)
                }
            }
            switch definition.declaration {
            case .enumeration: break
            case .structure(let base, let members):
                if let base { try use(base) }
                try use(members)
            case .union(let base, let discriminator, let branches):
                try use(base)
                guard base.contains(where: { $0.name == discriminator }) else {
                    throw SchemaError(
                        position: definition.position, message: "no member '\(discriminator)' to tell branches apart")
                }
                for branch in branches { try use(branch.type) }
            case .openUnion(let base, let discriminator, _):
                try use(base)
                guard base.contains(where: { $0.name == discriminator }) else {
                    throw SchemaError(
                        position: definition.position, message: "no member '\(discriminator)' to tell branches apart")
                }
            case .alternate(let branches): try use(branches)
            case .command(let arguments, let returns, _):
                try use(arguments)
                if let returns { try use(returns.name) }
            case .event(let arguments): try use(arguments)
            case .branch(let union, _, let type):
                guard case .openUnion = self.definition(union)?.declaration else {
                    throw SchemaError(position: definition.position, message: "'\(union)' is no open union")
                }
                if let type { try use(type) }
            }
        }
    }
}

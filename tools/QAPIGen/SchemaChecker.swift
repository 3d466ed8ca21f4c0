/// What must hold over all definitions together.
struct SchemaChecker {
    let schema: Schema

    static func check(_ schema: Schema) throws {
        let checker = SchemaChecker(schema: schema)
        for definition in schema.definitions { try checker.check(definition) }
        for (branch, location, _) in schema.branches { try checker.check(branch, location) }
        var seen: Set<String> = []
        for (branch, location, _) in schema.branches where !seen.insert(branch.union + " " + branch.value).inserted {
            throw SchemaError(location, "union '\(branch.union)' has a branch '\(branch.value)' already")
        }
    }

    private func check(_ definition: Definition) throws {
        var names: [String] = []
        switch definition.kind {
        case .enumeration(let enumeration):
            var cases: Set<String> = []
            for value in enumeration.values where !cases.insert(Naming.enumerationCase(value.name)).inserted {
                throw SchemaError(value.location, "'\(value.name)' has the same Swift name as another value")
            }
            names = enumeration.values.map(\.name)
        case .structure(let structure):
            if let base = structure.base { try requireStructure(base, definition.location, from: definition.name) }
            try check(schema.members(ofStructure: definition.name))
            names = structure.members.map(\.name)
        case .union(let union): names = try check(union, definition)
        case .alternate(let alternate):
            try check(alternate)
            names = alternate.branches.map(\.name)
        case .command(let command):
            names = try check(command.arguments, definition.location)
            if let returns = command.returns { try requireType(returns, definition.location) }
        case .event(let arguments): names = try check(arguments, definition.location)
        }
        for member in definition.documentation?.members ?? [] where !names.contains(member.name) {
            throw SchemaError(
                definition.location, "documentation of '\(definition.name)' describes '\(member.name)', which it lacks")
        }
    }

    private func check(_ arguments: Arguments, _ location: Location) throws -> [String] {
        switch arguments {
        case .none: return []
        case .inline(let members):
            try check(members)
            return members.map(\.name)
        case .named(let name):
            guard let definition = schema.type(name) else { throw SchemaError(location, "unknown type '\(name)'") }
            switch definition.kind {
            case .structure, .union: return []
            default: throw SchemaError(location, "'\(name)' is neither a struct nor a union")
            }
        }
    }

    private func check(_ union: UnionType, _ definition: Definition) throws -> [String] {
        if case .named(let base) = union.base {
            try requireStructure(base, definition.location, from: definition.name)
        }
        let members = schema.baseMembers(of: union)
        try check(members)
        guard let tag = members.first(where: { $0.name == union.discriminator }) else {
            throw SchemaError(definition.location, "discriminator '\(union.discriminator)' is no member of the base")
        }
        guard !tag.isOptional, case .named(let tagType) = tag.type,
            case .enumeration(let enumeration)? = schema.type(tagType)?.kind
        else {
            throw SchemaError(tag.location, "discriminator '\(union.discriminator)' must be a mandatory enum member")
        }
        if union.isOpen != enumeration.isOpen {
            throw SchemaError(
                definition.location, "union '\(definition.name)' and enum '\(tagType)' must both be open or both not")
        }
        for branch in union.branches {
            guard enumeration.values.contains(where: { $0.name == branch.value }) else {
                throw SchemaError(branch.location, "branch '\(branch.value)' is no value of enum '\(tagType)'")
            }
            try requireStructure(branch.type, branch.location, from: nil)
            try checkDisjoint(members, schema.members(ofStructure: branch.type), branch.location)
        }
        if case .inline(let own) = union.base { return own.map(\.name) + union.branches.map(\.value) }
        return union.branches.map(\.value)
    }

    private func check(_ branch: BranchDefinition, _ location: Location) throws {
        guard let definition = schema.type(branch.union), case .union(let union) = definition.kind, union.isOpen else {
            throw SchemaError(location, "'\(branch.union)' is not an open union")
        }
        guard Naming.isValid(branch.value) else {
            throw SchemaError(location, "'\(branch.value)' is not a valid name")
        }
        try requireStructure(branch.type, location, from: nil)
        try checkDisjoint(schema.baseMembers(of: union), schema.members(ofStructure: branch.type), location)
    }

    private func checkDisjoint(_ base: [Member], _ branch: [Member], _ location: Location) throws {
        for member in branch where base.contains(where: { $0.name == member.name }) {
            throw SchemaError(location, "member '\(member.name)' of the branch clashes with the union's base")
        }
    }

    /// Which kinds of JSON value tell the branches of an alternate apart.
    private func check(_ alternate: AlternateType) throws {
        var kinds: Set<String> = []
        for branch in alternate.branches {
            guard let kind = schema.jsonKind(ofAlternateBranch: branch.type) else {
                throw SchemaError(branch.location, "'\(branch.type)' cannot be a branch of an alternate")
            }
            guard kinds.insert(kind).inserted else {
                throw SchemaError(
                    branch.location, "branch '\(branch.name)' cannot be told from another by its JSON type")
            }
        }
    }

    private func check(_ members: [Member]) throws {
        var names: Set<String> = []
        var swiftNames: Set<String> = []
        for member in members {
            guard names.insert(member.name).inserted else {
                throw SchemaError(member.location, "member '\(member.name)' is there twice")
            }
            guard swiftNames.insert(Naming.member(member.name)).inserted else {
                throw SchemaError(member.location, "member '\(member.name)' has the same Swift name as another")
            }
            try requireType(member.type, member.location)
            if case .list(let element) = member.type, element.name == "size" {
                throw SchemaError(member.location, "arrays of 'size' are not supported")
            }
            if member.type.isList, schema.isOpenEnumeration(member.type) {
                throw SchemaError(member.location, "arrays of an open enum are not supported")
            }
        }
    }

    private func requireType(_ reference: TypeReference, _ location: Location) throws {
        let name = reference.name
        guard Schema.builtins[name] != nil || schema.type(name) != nil else {
            throw SchemaError(location, "unknown type '\(name)'")
        }
    }

    private func requireStructure(_ name: String, _ location: Location, from user: String?) throws {
        guard let definition = schema.type(name) else { throw SchemaError(location, "unknown type '\(name)'") }
        guard case .structure(let structure) = definition.kind else {
            throw SchemaError(location, "'\(name)' is not a struct")
        }
        var bases: Set<String> = [name]
        if let user { bases.insert(user) }
        var next = structure.base
        if name == user { throw SchemaError(location, "'\(name)' is its own base") }
        while let base = next {
            guard bases.insert(base).inserted else { throw SchemaError(location, "'\(base)' is its own base") }
            guard case .structure(let structure)? = schema.type(base)?.kind else { break }
            next = structure.base
        }
    }
}

extension Schema {
    /// The kind of JSON value (as `QAPIInput.Kind` names it) by which an alternate chooses the branch; nil if none.
    func jsonKind(ofAlternateBranch name: String) -> String? {
        if let builtin = Self.builtins[name] {
            switch builtin.json {
            case "string": return "string"
            case "boolean": return "bool"
            case "null": return "null"
            case "int", "number": return "number"
            default: return nil
            }
        }
        switch type(name)?.kind {
        case .enumeration: return "string"
        case .structure, .union: return "object"
        default: return nil
        }
    }
}

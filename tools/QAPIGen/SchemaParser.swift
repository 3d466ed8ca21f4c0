/// Turns expressions into definitions.
enum SchemaParser {
    static func definition(_ expression: SchemaExpression) throws(SchemaError) -> Definition? {
        let value = expression.value
        guard let kind = value.members?.first?.key else {
            throw SchemaError(position: expression.position, message: "empty expression")
        }
        if ["include", "pragma"].contains(kind) { return nil }
        let parser = ExpressionParser(value: value, position: expression.position)
        let declaration: Declaration
        switch kind {
        case "enum": declaration = .enumeration(values: try parser.enumValues())
        case "struct":
            declaration = .structure(
                base: value["base"]?.string, members: try parser.members(value["data"], "data"))
        case "union": declaration = try parser.union()
        case "alternate": declaration = .alternate(branches: try parser.members(value["data"], "data"))
        case "command":
            declaration = .command(
                arguments: try parser.arguments(), returns: try value["returns"].map(parser.type),
                allowsOutOfBand: value["allow-oob"]?.isTrue ?? false)
        case "event": declaration = .event(arguments: try parser.arguments())
        case "branch":
            guard let branchValue = value["value"]?.string else { throw parser.error("'value' is missing") }
            declaration = .branch(
                union: try parser.name(kind), value: branchValue, type: value["data"]?.string)
        default: throw parser.error("unknown expression '\(kind)'")
        }
        return Definition(
            name: try parser.name(kind), declaration: declaration, position: expression.position,
            documentation: expression.documentation)
    }
}

private struct ExpressionParser {
    let value: SchemaValue
    let position: SourcePosition

    func error(_ message: String) -> SchemaError { SchemaError(position: position, message: message) }

    func name(_ kind: String) throws(SchemaError) -> String {
        guard let name = value[kind]?.string, !name.isEmpty else { throw error("'\(kind)' has no name") }
        return name
    }

    func type(_ value: SchemaValue) throws(SchemaError) -> TypeReference {
        if let name = value.string { return TypeReference(name: name, isList: false) }
        if let list = value.list, list.count == 1, let name = list[0].string {
            return TypeReference(name: name, isList: true)
        }
        if let type = value["type"] { return try self.type(type) }
        throw error("expected a type")
    }

    func members(_ value: SchemaValue?, _ what: String) throws(SchemaError) -> [Member] {
        guard let members = value?.members else { throw error("'\(what)' must list members") }
        var result: [Member] = []
        for (key, value) in members {
            let isOptional = key.hasPrefix("*")
            result.append(
                Member(name: isOptional ? String(key.dropFirst()) : key, type: try type(value), isOptional: isOptional))
        }
        return result
    }

    func arguments() throws(SchemaError) -> Arguments {
        guard let data = value["data"] else { return .none }
        if let name = data.string { return .type(name) }
        let members = try members(data, "data")
        return members.isEmpty ? .none : .members(members)
    }

    func enumValues() throws(SchemaError) -> [String] {
        guard let list = value["data"]?.list else { throw error("'data' must list values") }
        var values: [String] = []
        for item in list {
            guard let name = item.string ?? item["name"]?.string else { throw error("expected a value's name") }
            values.append(name)
        }
        return values
    }

    func union() throws(SchemaError) -> Declaration {
        guard let discriminator = value["discriminator"]?.string else { throw error("'discriminator' is missing") }
        let base = try members(value["base"], "base")
        if value["open"]?.isTrue ?? false {
            return .openUnion(base: base, discriminator: discriminator, wrapper: value["wrapped"]?.string)
        }
        guard let data = value["data"]?.members else { throw error("'data' must list branches") }
        var branches: [(value: String, type: String)] = []
        for (key, value) in data {
            guard let type = value.string else { throw error("branch '\(key)' must name a type") }
            branches.append((key, type))
        }
        return .union(base: base, discriminator: discriminator, branches: branches)
    }
}

/// Writes the `SchemaInfo` objects of one schema folder as JSON text, one a line.
struct IntrospectionEmitter {
    let schema: Schema
    let own: [Definition]

    func json() -> String {
        var infos: [String] = []
        var arrays: Set<String> = []
        func reference(_ type: TypeReference) -> String {
            let name = ["size", "int64", "uint64", "uint32", "uint16"].contains(type.name) ? "int" : type.name
            if type.isList { arrays.insert(name) }
            return type.isList ? "[\(name)]" : name
        }
        func object(_ name: String, _ members: [Member], _ more: String = "") -> String {
            let list = members.map { member in
                let optional = member.isOptional ? ", \"default\": null" : ""
                return "{\"name\": \"\(member.name)\", \"type\": \"\(reference(member.type))\"\(optional)}"
            }
            return "{\"name\": \"\(name)\", \"meta-type\": \"object\", \"members\": [\(list.joined(separator: ", "))]\(more)}"
        }
        func arguments(_ arguments: Arguments, of name: String) -> String {
            switch arguments {
            case .none: return "q_empty"
            case .type(let type): return type
            case .members(let members):
                infos.append(object("q_obj_\(name)-arg", members))
                return "q_obj_\(name)-arg"
            }
        }
        for definition in own {
            let name = definition.name
            switch definition.declaration {
            case .enumeration(let values):
                let members = values.map { "{\"name\": \"\($0)\"}" }.joined(separator: ", ")
                let list = values.map { "\"\($0)\"" }.joined(separator: ", ")
                infos.append(
                    "{\"name\": \"\(name)\", \"meta-type\": \"enum\", \"members\": [\(members)], \"values\": [\(list)]}")
            case .structure: infos.append(object(name, schema.allMembers(of: name)))
            case .union(let base, let discriminator, let branches):
                let variants = branches.map { "{\"case\": \"\($0.value)\", \"type\": \"\($0.type)\"}" }
                infos.append(
                    object(name, base, ", \"tag\": \"\(discriminator)\", \"variants\": [\(variants.joined(separator: ", "))]"))
            case .openUnion(let base, let discriminator, let wrapper):
                let inner = wrapper.map { "\"\($0)\"" } ?? "null"
                infos.append(object(name, base, ", \"tag\": \"\(discriminator)\", \"open\": \(inner)"))
                if let member = base.first(where: { $0.name == discriminator }) {
                    infos.append(
                        "{\"name\": \"\(member.type.name)\", \"meta-type\": \"enum\", \"open-enum-of\": \"\(name)\"}")
                }
            case .alternate(let branches):
                let members = branches.map { "{\"type\": \"\(reference($0.type))\"}" }
                infos.append(
                    "{\"name\": \"\(name)\", \"meta-type\": \"alternate\", \"members\": [\(members.joined(separator: ", "))]}")
            case .command(let data, let returns, let allowsOutOfBand):
                let type = arguments(data, of: name)
                let outOfBand = allowsOutOfBand ? ", \"allow-oob\": true" : ""
                infos.append(
                    "{\"name\": \"\(name)\", \"meta-type\": \"command\", \"arg-type\": \"\(type)\", \"ret-type\": \"\(returns.map(reference) ?? "q_empty")\"\(outOfBand)}"
                )
            case .event(let data):
                infos.append(
                    "{\"name\": \"\(name)\", \"meta-type\": \"event\", \"arg-type\": \"\(arguments(data, of: name))\"}")
            case .branch: break
            }
        }
        infos += arrays.sorted().map {
            "{\"name\": \"[\($0)]\", \"meta-type\": \"array\", \"element-type\": \"\($0)\"}"
        }
        infos += builtins
        return "[" + infos.joined(separator: ",\n") + "]"
    }

    /// Every fragment brings them; each is listed once in the end.
    private var builtins: [String] {
        [("str", "string"), ("int", "int"), ("number", "number"), ("bool", "boolean"), ("null", "null"), ("any", "value")]
            .map { "{\"name\": \"\($0.0)\", \"meta-type\": \"builtin\", \"json-type\": \"\($0.1)\"}" }
            + ["{\"name\": \"q_empty\", \"meta-type\": \"object\", \"members\": []}"]
    }
}

/// What a target tells the running agent about its schema: branches, names, introspection.
extension SwiftWriter {
    func writeFragment(_ source: inout SourceText) {
        let isCore = target == "QAPI"
        let own = schema.definitions.filter { $0.owner == owner }
        source.documentation(["The schema of \(target) for the branch table and for introspection."])
        source.block("public enum \(isCore ? "CoreSchema" : "GeneratedSchema")") { source in
            source.line("public static let fragment = SchemaFragment(")
            source.line("    name: \"\(target)\",")
            source.line("    openUnions: [\(openUnions(own).joined(separator: ", "))],")
            source.line("    openValues: [\(openValues(own).joined(separator: ", "))],")
            source.line("    branches: [")
            for (branch, _, branchOwner) in schema.branches where branchOwner == owner {
                source.line(
                    "        .init(union: \"\(branch.union)\", value: \"\(branch.value)\", "
                        + "typeName: \"\(branch.type)\", type: \(Naming.type(branch.type)).self),")
            }
            source.line("    ],")
            source.line("    commands: [\(names(own) { if case .command = $0 { true } else { false } })],")
            source.line("    events: [\(names(own) { if case .event = $0 { true } else { false } })],")
            source.line("    introspection: introspection)")
            source.line()
            // QAPI's names hold nothing that this string would interpret.
            source.line("private static let introspection = #\"\"\"")
            let entries = own.flatMap(entries)
            source.line("    [")
            for (index, entry) in entries.enumerated() {
                source.line("    " + entry + (index + 1 < entries.count ? "," : ""))
            }
            source.line("    ]")
            source.line("    \"\"\"#")
        }
    }

    private func names(_ definitions: [Definition], _ isWanted: (Definition.Kind) -> Bool) -> String {
        definitions.filter { isWanted($0.kind) }.map { "\"\($0.name)\"" }.joined(separator: ", ")
    }

    private func openUnions(_ definitions: [Definition]) -> [String] {
        definitions.compactMap { definition in
            guard case .union(let union) = definition.kind, union.isOpen else { return nil }
            let tag = schema.baseMembers(of: union).first { $0.name == union.discriminator }
            let wrapper = union.wrapper.map { ", wrapper: \"\($0)\"" } ?? ""
            return ".init(union: \"\(definition.name)\", enumeration: \"\(tag?.type.name ?? "")\"\(wrapper))"
        }
    }

    /// Values that an open enum has whether or not a branch brings them.
    private func openValues(_ definitions: [Definition]) -> [String] {
        definitions.flatMap { definition -> [String] in
            guard case .enumeration(let enumeration) = definition.kind, enumeration.isOpen else { return [] }
            return enumeration.values.map { ".init(enumeration: \"\(definition.name)\", value: \"\($0.name)\")" }
        }
    }

    /// SchemaInfo objects with plain names, in compact JSON.
    private func entries(_ definition: Definition) -> [String] {
        let features = definition.features.isEmpty ? "" : ",\"features\":\(list(definition.features.map(quoted)))"
        func entry(_ name: String, _ metaType: String, _ rest: String, _ features: String) -> String {
            "{\"name\":\(quoted(name)),\"meta-type\":\(quoted(metaType))\(rest)\(features)}"
        }
        switch definition.kind {
        case .enumeration(let enumeration):
            let members = enumeration.values.map { value in
                let features = value.features.isEmpty ? "" : ",\"features\":\(list(value.features.map(quoted)))"
                return "{\"name\":\(quoted(value.name))\(features)}"
            }
            let rest = ",\"members\":\(list(members)),\"values\":\(list(enumeration.values.map { quoted($0.name) }))"
            return [entry(definition.name, "enum", rest, features)]
        case .structure:
            let members = schema.members(ofStructure: definition.name)
            return [entry(definition.name, "object", ",\"members\":\(list(members.map(self.member)))", features)]
        case .union(let union):
            let members = schema.baseMembers(of: union)
            let tag = members.first { $0.name == union.discriminator }
            var values: [String] = []
            if !union.isOpen, let tag, case .enumeration(let enumeration)? = schema.type(tag.type.name)?.kind {
                values = enumeration.values.map(\.name)
            }
            let variants = values.map { value in
                let type = union.branches.first { $0.value == value }?.type ?? "q_empty"
                return "{\"case\":\(quoted(value)),\"type\":\(quoted(type))}"
            }
            let rest =
                ",\"members\":\(list(members.map(self.member))),\"tag\":\(quoted(union.discriminator))"
                + ",\"variants\":\(list(variants))"
            return [entry(definition.name, "object", rest, features)]
        case .alternate(let alternate):
            let members = alternate.branches.map { "{\"type\":\(quoted(Self.introspected(.named($0.type))))}" }
            return [entry(definition.name, "alternate", ",\"members\":\(list(members))", features)]
        case .command(let command):
            let (type, extra) = arguments(command.arguments, definition.name)
            let returns = command.returns.map(Self.introspected) ?? "q_empty"
            let rest =
                ",\"arg-type\":\(quoted(type)),\"ret-type\":\(quoted(returns))"
                + (command.allowsOutOfBand ? ",\"allow-oob\":true" : "")
            return [entry(definition.name, "command", rest, features)] + extra
        case .event(let arguments):
            let (type, extra) = self.arguments(arguments, definition.name)
            return [entry(definition.name, "event", ",\"arg-type\":\(quoted(type))", features)] + extra
        }
    }

    /// The type that stands for arguments, and its own entry if it has no name in the schema.
    private func arguments(_ arguments: Arguments, _ name: String) -> (type: String, entries: [String]) {
        switch arguments {
        case .none: return ("q_empty", [])
        case .named(let type): return (type, [])
        case .inline(let members):
            let type = "q_obj_\(name)-arg"
            let members = list(members.map(self.member))
            return (type, ["{\"name\":\(quoted(type)),\"meta-type\":\"object\",\"members\":\(members)}"])
        }
    }

    private func member(_ member: Member) -> String {
        let features = member.features.isEmpty ? "" : ",\"features\":\(list(member.features.map(quoted)))"
        return "{\"name\":\(quoted(member.name)),\"type\":\(quoted(Self.introspected(member.type)))"
            + (member.isOptional ? ",\"default\":null" : "") + features + "}"
    }

    /// Introspection knows one integer type only.
    private static func introspected(_ reference: TypeReference) -> String {
        switch reference {
        case .named(let name): Schema.builtins[name]?.json == "int" ? "int" : name
        case .list(let element): "[\(introspected(element))]"
        }
    }

    private func quoted(_ text: String) -> String { "\"\(text)\"" }
    private func list(_ items: [String]) -> String { "[" + items.joined(separator: ",") + "]" }
}

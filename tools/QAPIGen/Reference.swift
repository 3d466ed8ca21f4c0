/// The manual in Markdown: per owner its commands and events, then the types that they use.
struct Reference {
    let schema: Schema
    /// Names of the folders, the core first.
    let owners: [String]

    static func write(_ schema: Schema, owners: [String]) -> String {
        let reference = Reference(schema: schema, owners: owners)
        var lines = [
            "# QMP reference", "",
            "Generated from the schema files by `tools/qmp-reference`; changes belong there. Names, types and meaning are",
            "those of QEMU 7.2 unless an entry says that it is Coldframe's own. What the guest answers is not listed: see",
            "[qmp-ownership.md](qmp-ownership.md).", "",
            "Any command may fail with class GenericError for a wrong argument. `[T]` is a list of T.", "",
        ]
        for owner in owners.indices { lines += reference.section(owner) }
        return lines.joined(separator: "\n") + "\n"
    }

    private func section(_ owner: Int) -> [String] {
        let own = schema.definitions.filter { $0.owner == owner }
        let branches = schema.branches.filter { $0.owner == owner }
        guard !own.isEmpty || !branches.isEmpty else { return [] }
        var lines = ["## \(owners[owner])", ""]
        let groups: [(title: String, isWanted: (Definition.Kind) -> Bool)] = [
            ("Commands", { if case .command = $0 { true } else { false } }),
            ("Events", { if case .event = $0 { true } else { false } }),
            ("Types", { if case .command = $0 { false } else if case .event = $0 { false } else { true } }),
        ]
        for (title, isWanted) in groups {
            let wanted = own.filter { isWanted($0.kind) }.sorted { $0.name < $1.name }
            if wanted.isEmpty { continue }
            lines += ["### \(title)", ""]
            for definition in wanted { lines += entry(definition) }
        }
        if !branches.isEmpty {
            lines += ["### Branches", "", "| union | value | members |", "|---|---|---|"]
            lines += branches.map { "| \(link($0.branch.union)) | `\($0.branch.value)` | \(link($0.branch.type)) |" }
            lines.append("")
        }
        return lines
    }

    private func entry(_ definition: Definition) -> [String] {
        var lines = ["#### \(definition.name)", ""]
        for paragraph in definition.documentation?.body ?? [] { lines += [paragraph, ""] }
        switch definition.kind {
        case .enumeration(let enumeration):
            if enumeration.isOpen {
                let values = openValues(of: definition.name)
                lines += ["Values: \(values.map { "`\($0)`" }.joined(separator: ", "))", ""]
            } else {
                lines += enumeration.values.map { item("`\($0.name)`", definition, $0.name) } + [""]
            }
        case .structure: lines += members(schema.members(ofStructure: definition.name), definition)
        case .union(let union):
            lines += members(schema.baseMembers(of: union), definition)
            let inner = union.wrapper.map { ", inside `\($0)`" } ?? ""
            for (value, type) in variants(of: union, definition.name) {
                lines.append("- with `\(union.discriminator)` `\(value)`\(inner): the members of \(link(type))")
            }
            lines.append("")
        case .alternate(let alternate):
            lines += alternate.branches.map { item(link($0.type), definition, $0.name) } + [""]
        case .command(let command):
            lines += arguments(command.arguments, definition)
            if let returns = command.returns {
                let text = definition.documentation?.sections.first { $0.title == "Returns" }?.text
                lines += ["Returns \(link(returns))" + (text.map { ": \($0)" } ?? "."), ""]
            }
            if command.allowsOutOfBand { lines += ["May be executed out of band.", ""] }
        case .event(let arguments): lines += self.arguments(arguments, definition)
        }
        for section in definition.documentation?.sections ?? [] where section.title != "Returns" {
            lines += ["*\(section.title)*: \(section.text)", ""]
        }
        if !definition.features.isEmpty {
            lines += ["*Features*: \(definition.features.map { "`\($0)`" }.joined(separator: ", "))", ""]
        }
        return lines
    }

    private func arguments(_ arguments: Arguments, _ definition: Definition) -> [String] {
        switch arguments {
        case .none: []
        case .named(let type): ["Members: those of \(link(type)).", ""]
        case .inline(let members): self.members(members, definition)
        }
    }

    private func members(_ members: [Member], _ definition: Definition) -> [String] {
        if members.isEmpty { return [] }
        return members.map { member in
            let optional = member.isOptional ? ", optional" : ""
            return item("`\(member.name)` (\(link(member.type))\(optional))", definition, member.name)
        } + [""]
    }

    private func item(_ head: String, _ definition: Definition, _ name: String) -> String {
        let text = documentation(of: name, in: definition)?.split(separator: "\n").joined(separator: " ")
        return "- \(head)" + (text.map { $0.isEmpty ? "" : ": \($0)" } ?? "")
    }

    /// What the definition says of a member, or the base that it comes from.
    private func documentation(of member: String, in definition: Definition) -> String? {
        if let text = definition.documentation?.text(ofMember: member) { return text }
        guard case .structure(let structure) = definition.kind, let base = structure.base.flatMap(schema.type) else {
            return nil
        }
        return documentation(of: member, in: base)
    }

    private func variants(of union: UnionType, _ name: String) -> [(value: String, type: String)] {
        union.isOpen
            ? schema.branches.filter { $0.branch.union == name }.map { ($0.branch.value, $0.branch.type) }
            : union.branches.map { ($0.value, $0.type) }
    }

    private func openValues(of enumeration: String) -> [String] {
        var values: [String] = []
        for (branch, _, _) in schema.branches {
            guard case .union(let union)? = schema.type(branch.union)?.kind,
                schema.baseMembers(of: union).contains(where: {
                    $0.name == union.discriminator && $0.type.name == enumeration
                }), !values.contains(branch.value)
            else { continue }
            values.append(branch.value)
        }
        return values
    }

    private func link(_ reference: TypeReference) -> String {
        switch reference {
        case .named(let name): link(name)
        case .list(let element): "\\[\(link(element))\\]"
        }
    }

    /// Headings make anchors of their lower-cased names.
    private func link(_ name: String) -> String {
        schema.type(name) == nil ? "`\(name)`" : "[\(name)](#\(name.lowercased()))"
    }
}

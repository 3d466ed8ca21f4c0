/// Structs and unions: members, initialisers, decoding and encoding.
extension SwiftWriter {
    func writeObject(
        _ keyword: String, _ name: String, _ conformances: String, _ members: [Member], _ definition: Definition,
        _ source: inout SourceText, _ extra: String? = nil
    ) {
        source.block("public \(keyword) \(name): \(conformances)") { source in
            if let extra { source.line(extra) }
            writeStoredMembers(members, in: definition.name, definition.documentation, &source)
            source.line()
            writeInitializer(members, in: definition.name, extra: nil, &source)
            source.line()
            source.block("public init(members input: inout QAPIObjectInput) throws(QMPError)") { source in
                for member in members { source.line(decoding(of: member, into: "self." + Naming.member(member.name))) }
            }
            source.line()
            source.block("public func write(to object: inout JSONObject)") { source in
                for member in members { source.line(encoding(of: member)) }
            }
        }
    }

    func write(_ union: UnionType, _ definition: Definition, _ source: inout SourceText) {
        let members = schema.baseMembers(of: union)
        let tag = Naming.member(union.discriminator)
        let branchType = union.isOpen ? "any QAPIObjectValue" : "Branch"
        source.block("public struct \(Naming.type(definition.name)): QAPIObjectValue, Equatable") { source in
            if !union.isOpen { writeBranchType(union, definition, &source) }
            writeStoredMembers(members, in: definition.name, definition.documentation, &source)
            source.line(
                union.isOpen
                    ? "/// What the module behind `\(union.discriminator)` adds: its branch type, which only it casts."
                    : "/// The members that this value of `\(union.discriminator)` brings.")
            source.line("public var branch: \(branchType)")
            source.line()
            writeInitializer(members, in: definition.name, extra: ("branch", branchType), &source)
            source.line()
            source.block("public init(members input: inout QAPIObjectInput) throws(QMPError)") { source in
                for member in members { source.line(decoding(of: member, into: "self." + Naming.member(member.name))) }
                if union.isOpen {
                    let wrapper = union.wrapper.map { ", wrapper: \"\($0)\"" } ?? ""
                    source.line(
                        "self.branch = try input.branch(of: \"\(definition.name)\", value: self.\(tag)\(wrapper))")
                } else {
                    writeBranchDecoding(union, tag, &source)
                }
            }
            source.line()
            source.block("public func write(to object: inout JSONObject)") { source in
                for member in members { source.line(encoding(of: member)) }
                if let wrapper = union.wrapper {
                    source.line("object[\"\(wrapper)\"] = self.branch.json")
                } else if union.isOpen {
                    source.line("self.branch.write(to: &object)")
                } else {
                    writeBranchEncoding(union, &source)
                }
            }
            if union.isOpen {
                source.line()
                source.line("public static func == (left: Self, right: Self) -> Bool { left.json == right.json }")
            }
        }
    }

    private func writeBranchType(_ union: UnionType, _ definition: Definition, _ source: inout SourceText) {
        let isIndirect = union.branches.contains { schema.contains(definition.name, in: $0.type) }
        source.line("/// The members that depend on `\(union.discriminator)`.")
        source.block("public \(isIndirect ? "indirect " : "")enum Branch: Sendable, Equatable") { source in
            for branch in union.branches {
                source.line("case \(Naming.enumerationCase(branch.value))(\(Naming.type(branch.type)))")
            }
            source.line("case none")
        }
        source.line()
    }

    private func writeBranchDecoding(_ union: UnionType, _ tag: String, _ source: inout SourceText) {
        source.block("switch self.\(tag).rawValue") { source in
            for branch in union.branches {
                source.line(
                    "case \"\(branch.value)\": self.branch = .\(Naming.enumerationCase(branch.value))"
                        + "(try \(Naming.type(branch.type))(members: &input))")
            }
            source.line("default: self.branch = .none")
        }
    }

    private func writeBranchEncoding(_ union: UnionType, _ source: inout SourceText) {
        source.block("switch self.branch") { source in
            for branch in union.branches {
                source.line("case .\(Naming.enumerationCase(branch.value))(let value): value.write(to: &object)")
            }
            source.line("case .none: break")
        }
    }

    private func writeStoredMembers(
        _ members: [Member], in type: String, _ documentation: Documentation?, _ source: inout SourceText
    ) {
        for member in members {
            if let text = documentation?.text(ofMember: member.name), !text.isEmpty { source.documentation([text]) }
            source.line("public var \(Naming.member(member.name)): \(swiftType(of: member, in: type))")
        }
    }

    private func writeInitializer(
        _ members: [Member], in type: String, extra: (name: String, type: String)?, _ source: inout SourceText
    ) {
        var parameters = members.map {
            "\(Naming.member($0.name)): \(swiftType(of: $0, in: type))\($0.isOptional ? " = nil" : "")"
        }
        if let extra { parameters.append("\(extra.name): \(extra.type)") }
        if parameters.isEmpty {
            source.line("public init() {}")
            return
        }
        source.block("public init(\(parameters.joined(separator: ", ")))") { source in
            for member in members {
                let name = Naming.member(member.name)
                source.line("self.\(name) = \(name)")
            }
            if let extra { source.line("self.\(extra.name) = \(extra.name)") }
        }
    }

    /// A member that holds the type that it stands in is boxed; an open enum is a string.
    private func swiftType(of member: Member, in owner: String) -> String {
        var type = schema.isOpenEnumeration(member.type) ? "Swift.String" : Naming.type(member.type)
        if !member.type.isList, schema.contains(owner, in: member.type.name) { type = "QAPIBox<\(type)>" }
        return type + (member.isOptional ? "?" : "")
    }

    private func decoding(of member: Member, into target: String) -> String {
        let method = member.isOptional ? "optional" : "required"
        if schema.isOpenEnumeration(member.type) {
            return "\(target) = try input.\(method)(\"\(member.name)\", openEnum: \"\(member.type.name)\")"
        }
        let suffix = member.type == .named("size") ? "ByteCount" : ""
        return "\(target) = try input.\(method)\(suffix)(\"\(member.name)\")"
    }

    private func encoding(of member: Member) -> String {
        let name = "self." + Naming.member(member.name)
        return member.isOptional
            ? "if let value = \(name) { object[\"\(member.name)\"] = value.json }"
            : "object[\"\(member.name)\"] = \(name).json"
    }
}

extension TypeReference {
    var isList: Bool {
        if case .list = self { true } else { false }
    }
}

extension Schema {
    func isOpenEnumeration(_ reference: TypeReference) -> Bool {
        if case .enumeration(let enumeration)? = type(reference.name)?.kind { enumeration.isOpen } else { false }
    }

    /// Whether a value of type `outer` holds one of type `inner` in place, that is, not in a list or an existential.
    func contains(_ inner: String, in outer: String) -> Bool {
        var visited: Set<String> = []
        var pending = [outer]
        while let name = pending.popLast() {
            if name == inner { return true }
            guard visited.insert(name).inserted, let definition = type(name) else { continue }
            var members: [Member] = []
            switch definition.kind {
            case .structure: members = self.members(ofStructure: name)
            case .union(let union):
                members = baseMembers(of: union)
                pending += union.branches.map(\.type)
            case .alternate(let alternate): pending += alternate.branches.map(\.type)
            default: break
            }
            pending += members.filter { !$0.type.isList }.map(\.type.name)
        }
        return false
    }
}

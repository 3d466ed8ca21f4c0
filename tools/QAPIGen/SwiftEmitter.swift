/// Writes the Swift types of one schema folder.
struct SwiftEmitter {
    private let schema: Schema
    /// Definitions of the folder itself; the others of `schema` are declared elsewhere.
    private let own: [Definition]
    /// Name of the enumeration that holds the fragment.
    private let fragmentName: String
    private var lines: [String] = []

    init(schema: Schema, own: [Definition], fragmentName: String) {
        self.schema = schema
        self.own = own
        self.fragmentName = fragmentName
    }

    mutating func emit(imports: [String]) -> String {
        lines = ["// Generated from the QAPI files in schema/; not to be edited.", ""]
        lines += imports.map { "import \($0)" }
        for definition in own {
            lines.append("")
            switch definition.declaration {
            case .enumeration(let values): emitEnum(definition, values)
            case .structure: emitStruct(definition, members: schema.allMembers(of: definition.name))
            case .union(let base, let discriminator, let branches):
                emitUnion(definition, base: base, discriminator: discriminator, branches: branches)
            case .openUnion(let base, let discriminator, let wrapper):
                emitOpenUnion(definition, base: base, discriminator: discriminator, wrapper: wrapper)
            case .alternate(let branches): emitAlternate(definition, branches)
            case .command(let arguments, let returns, let allowsOutOfBand):
                emitCommand(definition, arguments, returns, allowsOutOfBand)
            case .event(let arguments): emitEvent(definition, arguments)
            case .branch: lines.removeLast()
            }
        }
        emitFragment()
        return lines.joined(separator: "\n") + "\n"
    }

    // MARK: Types

    private mutating func document(_ definition: Definition) {
        for line in Documentation(definition.documentation).summary { lines.append("/// \(line)") }
    }

    private mutating func emitEnum(_ definition: Definition, _ values: [String]) {
        document(definition)
        lines.append("public enum \(SwiftNames.type(definition.name)): Swift.String, QAPIEnum {")
        for value in values { lines.append("    case \(SwiftNames.member(value)) = \"\(value)\"") }
        lines.append("}")
    }

    /// The Swift type of a member; one that holds its own type is boxed.
    private func type(of member: Member, in owner: String) -> String {
        let plain = SwiftNames.swiftType(member.type, openEnums: schema.openEnums)
        let type = member.type.name == owner && !member.type.isList ? "QAPIBox<\(plain)>" : plain
        return member.isOptional ? type + "?" : type
    }

    private mutating func emitMembers(_ members: [Member], in owner: String, documentation: [String]) {
        let texts = Documentation(documentation).members
        for member in members {
            if let text = texts[member.name] { lines.append("    /// \(text)") }
            lines.append("    public var \(SwiftNames.member(member.name)): \(type(of: member, in: owner))")
        }
    }

    private mutating func emitInit(_ members: [Member], in owner: String, extra: [(String, String)] = []) {
        let parameters =
            members.map { member in
                "\(SwiftNames.member(member.name)): \(type(of: member, in: owner))"
                    + (member.isOptional ? " = nil" : "")
            } + extra.map { "\($0.0): \($0.1)" }
        lines.append("    public init(\(parameters.joined(separator: ", "))) {")
        for name in members.map({ SwiftNames.member($0.name) }) + extra.map(\.0) {
            lines.append("        self.\(name) = \(name)")
        }
        lines.append("    }")
    }

    private mutating func emitDecoding(_ members: [Member]) {
        for member in members {
            let verb = member.isOptional ? "optional" : "required"
            lines.append("        \(SwiftNames.member(member.name)) = try input.\(verb)(\"\(member.name)\")")
        }
    }

    private mutating func emitEncoding(_ members: [Member]) {
        for member in members {
            let name = SwiftNames.member(member.name)
            lines.append(
                member.isOptional
                    ? "        if let \(name) { object[\"\(member.name)\"] = \(name).json }"
                    : "        object[\"\(member.name)\"] = \(name).json")
        }
    }

    private mutating func emitStruct(
        _ definition: Definition, members: [Member], name: String? = nil, conformance: String = "QAPIObjectValue",
        statics: [String] = []
    ) {
        document(definition)
        lines.append("public struct \(name ?? SwiftNames.type(definition.name)): \(conformance) {")
        lines += statics.map { "    \($0)" }
        emitMembers(members, in: definition.name, documentation: definition.documentation)
        emitInit(members, in: definition.name)
        lines.append("    public init(members input: inout QAPIObjectInput) throws(QMPError) {")
        emitDecoding(members)
        lines.append("    }")
        lines.append("    public func write(to object: inout JSONObject) {")
        emitEncoding(members)
        lines.append("    }")
        lines.append("}")
    }

    private mutating func emitUnion(
        _ definition: Definition, base: [Member], discriminator: String, branches: [(value: String, type: String)]
    ) {
        let name = SwiftNames.type(definition.name)
        document(definition)
        lines.append("public struct \(name): QAPIObjectValue {")
        lines.append("    public enum Branch: Sendable {")
        for branch in branches {
            lines.append("        case \(SwiftNames.member(branch.value))(\(SwiftNames.type(branch.type)))")
        }
        lines.append("        case none")
        lines.append("    }")
        emitMembers(base, in: definition.name, documentation: definition.documentation)
        lines.append("    public var branch: Branch")
        emitInit(base, in: definition.name, extra: [("branch", "Branch")])
        lines.append("    public init(members input: inout QAPIObjectInput) throws(QMPError) {")
        emitDecoding(base)
        lines.append("        switch \(SwiftNames.member(discriminator)).rawValue {")
        for branch in branches {
            let type = SwiftNames.type(branch.type)
            lines.append(
                "        case \"\(branch.value)\": branch = .\(SwiftNames.member(branch.value))(try \(type)(members: &input))"
            )
        }
        lines.append("        default: branch = .none")
        lines.append("        }")
        lines.append("    }")
        lines.append("    public func write(to object: inout JSONObject) {")
        emitEncoding(base)
        lines.append("        switch branch {")
        for branch in branches {
            lines.append("        case .\(SwiftNames.member(branch.value))(let value): value.write(to: &object)")
        }
        lines.append("        case .none: break")
        lines.append("        }")
        lines.append("    }")
        lines.append("}")
    }

    private mutating func emitOpenUnion(
        _ definition: Definition, base: [Member], discriminator: String, wrapper: String?
    ) {
        document(definition)
        lines.append("public struct \(SwiftNames.type(definition.name)): QAPIObjectValue {")
        emitMembers(base, in: definition.name, documentation: definition.documentation)
        lines.append("    /// The discriminator's own members; a value of the type that its module's schema names.")
        lines.append("    public var branch: any QAPIObjectValue")
        emitInit(base, in: definition.name, extra: [("branch", "any QAPIObjectValue")])
        lines.append("    public init(members input: inout QAPIObjectInput) throws(QMPError) {")
        emitDecoding(base)
        let inner = wrapper.map { ", wrapper: \"\($0)\"" } ?? ""
        lines.append("        branch = try input.branch(")
        lines.append(
            "            of: \"\(definition.name)\", discriminator: \"\(discriminator)\", value: \(SwiftNames.member(discriminator))\(inner))"
        )
        lines.append("    }")
        lines.append("    public func write(to object: inout JSONObject) {")
        emitEncoding(base)
        lines.append(
            wrapper.map { "        object[\"\($0)\"] = branch.json" } ?? "        branch.write(to: &object)")
        lines.append("    }")
        lines.append("}")
    }

    private mutating func emitAlternate(_ definition: Definition, _ branches: [Member]) {
        let name = SwiftNames.type(definition.name)
        document(definition)
        lines.append("public enum \(name): QAPIValue {")
        for branch in branches {
            let type = SwiftNames.swiftType(branch.type, openEnums: schema.openEnums)
            lines.append("    case \(SwiftNames.member(branch.name))(\(type))")
        }
        lines.append("    public init(_ input: QAPIInput) throws(QMPError) {")
        lines.append("        switch input.value {")
        for branch in branches {
            let type = SwiftNames.swiftType(branch.type, openEnums: schema.openEnums)
            lines.append(
                "        case .\(jsonCase(of: branch.type)): self = .\(SwiftNames.member(branch.name))(try \(type)(input))")
        }
        lines.append("        default: throw input.mismatchedAlternate(\"\(definition.name)\")")
        lines.append("        }")
        lines.append("    }")
        lines.append("    public var json: JSONValue {")
        lines.append("        switch self {")
        for branch in branches {
            lines.append("        case .\(SwiftNames.member(branch.name))(let value): value.json")
        }
        lines.append("        }")
        lines.append("    }")
        lines.append("}")
    }

    private func jsonCase(of type: TypeReference) -> String {
        if type.isList { return "array" }
        switch type.name {
        case "str": return "string"
        case "bool": return "bool"
        case "null": return "null"
        case "number": return "double"
        case "int", "int64", "uint64", "uint32", "uint16", "size": return "integer"
        default:
            if case .enumeration = schema.definition(type.name)?.declaration { return "string" }
            return "object"
        }
    }

    // MARK: Commands and events

    private mutating func emitCommand(
        _ definition: Definition, _ arguments: Arguments, _ returns: TypeReference?, _ allowsOutOfBand: Bool
    ) {
        let name = SwiftNames.type(definition.name)
        let argumentsType: String
        switch arguments {
        case .none: argumentsType = "QAPIEmpty"
        case .type(let type): argumentsType = SwiftNames.type(type)
        case .members(let members):
            argumentsType = name + "Arguments"
            emitStruct(definition, members: members, name: argumentsType)
            lines.append("")
        }
        let result = returns.map { SwiftNames.swiftType($0, openEnums: schema.openEnums) } ?? "QAPIEmpty"
        document(definition)
        lines.append("public enum \(name)Command: QAPICommand {")
        lines.append("    public typealias Arguments = \(argumentsType)")
        lines.append("    public typealias Result = \(result)")
        lines.append("    public static let name = \"\(definition.name)\"")
        lines.append("    public static let allowsOutOfBand = \(allowsOutOfBand)")
        lines.append("}")
    }

    private mutating func emitEvent(_ definition: Definition, _ arguments: Arguments) {
        let members: [Member]
        switch arguments {
        case .none: members = []
        case .members(let list): members = list
        case .type(let type): members = schema.allMembers(of: type)
        }
        emitStruct(
            definition, members: members, name: SwiftNames.type(definition.name) + "Event", conformance: "QAPIEvent",
            statics: ["public static let name = \"\(definition.name)\""])
    }

    // MARK: The fragment

    private mutating func emitFragment() {
        lines.append("")
        lines.append("/// What this folder's schema contributes.")
        lines.append("public enum \(fragmentName) {")
        lines.append("    public static let fragment = SchemaFragment(")
        lines.append("        branches: [")
        for definition in own {
            guard case .branch(let union, let value, let type) = definition.declaration else { continue }
            let swift = type.map(SwiftNames.type) ?? "QAPIEmpty"
            lines.append(
                "            QAPIBranch(union: \"\(union)\", value: \"\(value)\", typeName: \"\(type ?? "q_empty")\", \(swift).self),"
            )
        }
        lines.append("        ],")
        lines.append("        introspection: #\"\"\"")
        lines.append(IntrospectionEmitter(schema: schema, own: own).json())
        lines.append("\"\"\"#)")
        lines.append("}")
    }
}

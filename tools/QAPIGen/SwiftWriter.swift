/// Collects lines of Swift with their indentation.
struct SourceText {
    private(set) var text = ""
    private var depth = 0

    mutating func line(_ content: String = "") {
        text += content.isEmpty ? "\n" : String(repeating: "    ", count: depth) + content + "\n"
    }

    /// A line that opens a block, the block's content, its closing brace.
    mutating func block(_ head: String, _ body: (inout SourceText) -> Void) {
        line(head + " {")
        depth += 1
        body(&self)
        depth -= 1
        line("}")
    }

    mutating func documentation(_ paragraphs: [String]) {
        for (index, paragraph) in paragraphs.enumerated() {
            if index > 0 { line("///") }
            for text in Self.wrapped(paragraph, width: 110 - depth * 4) { line("/// " + text) }
        }
    }

    static func wrapped(_ paragraph: String, width: Int) -> [String] {
        var lines: [String] = []
        var current = ""
        for word in paragraph.split(whereSeparator: { $0 == " " || $0 == "\n" }) {
            if !current.isEmpty, current.count + word.count + 1 > width {
                lines.append(current)
                current = String(word)
            } else {
                current += (current.isEmpty ? "" : " ") + word
            }
        }
        return current.isEmpty ? lines : lines + [current]
    }
}

/// Writes the Swift file of one target.
struct SwiftWriter {
    let schema: Schema
    /// Index of the folder whose definitions are written; the others are there to be looked up.
    let owner: Int
    /// The target's name.
    let target: String

    private var isCore: Bool { target == "QAPI" }

    static func write(_ schema: Schema, owner: Int, target: String) -> String {
        let writer = SwiftWriter(schema: schema, owner: owner, target: target)
        var source = SourceText()
        source.line("// Generated from the schema files of \(target) by QAPIGen. Changes belong there.")
        source.line()
        if !writer.isCore { source.line("import QAPI") }
        source.line("import QMPWire")
        for definition in schema.definitions where definition.owner == owner {
            // The values of an open enum are known at run time only: its members are strings.
            if case .enumeration(let enumeration) = definition.kind, enumeration.isOpen { continue }
            source.line()
            writer.write(definition, &source)
        }
        source.line()
        writer.writeFragment(&source)
        return source.text
    }

    private func write(_ definition: Definition, _ source: inout SourceText) {
        switch definition.kind {
        case .enumeration(let enumeration): write(enumeration, definition, &source)
        case .structure:
            source.documentation(definition.documentation?.body ?? [])
            writeObject(
                "struct", Naming.type(definition.name), "QAPIObjectValue, Equatable",
                schema.members(ofStructure: definition.name), definition, &source)
        case .union(let union):
            source.documentation(definition.documentation?.body ?? [])
            write(union, definition, &source)
        case .alternate(let alternate): write(alternate, definition, &source)
        case .command(let command): write(command, definition, &source)
        case .event(let arguments): writeEvent(arguments, definition, &source)
        }
    }

    private func write(_ enumeration: EnumerationType, _ definition: Definition, _ source: inout SourceText) {
        let name = Naming.type(definition.name)
        source.documentation(definition.documentation?.body ?? [])
        source.block("public enum \(name): Swift.String, QAPIEnum") { source in
            for value in enumeration.values {
                if let text = definition.documentation?.text(ofMember: value.name) { source.documentation([text]) }
                source.line("case \(Naming.enumerationCase(value.name)) = \"\(value.name)\"")
            }
        }
    }

    private func write(_ alternate: AlternateType, _ definition: Definition, _ source: inout SourceText) {
        let name = Naming.type(definition.name)
        let isIndirect = alternate.branches.contains { schema.contains(definition.name, in: $0.type) }
        source.documentation(definition.documentation?.body ?? [])
        source.block("public \(isIndirect ? "indirect " : "")enum \(name): QAPIValue, Equatable") { source in
            for branch in alternate.branches {
                if let text = definition.documentation?.text(ofMember: branch.name) { source.documentation([text]) }
                source.line("case \(Naming.enumerationCase(branch.name))(\(Naming.type(.named(branch.type))))")
            }
            source.line()
            source.block("public init(_ input: QAPIInput) throws(QMPError)") { source in
                source.block("switch input.kind") { source in
                    for branch in alternate.branches {
                        let kind = schema.jsonKind(ofAlternateBranch: branch.type) ?? "string"
                        let type = Naming.type(.named(branch.type))
                        source.line(
                            "case .\(kind): self = .\(Naming.enumerationCase(branch.name))(try \(type)(input))")
                    }
                    source.line("default: throw input.matchesNoBranch(of: \"\(definition.name)\")")
                }
            }
            source.line()
            source.block("public var json: JSONValue") { source in
                source.block("switch self") { source in
                    for branch in alternate.branches {
                        source.line("case .\(Naming.enumerationCase(branch.name))(let value): value.json")
                    }
                }
            }
        }
    }

    private func write(_ command: CommandDefinition, _ definition: Definition, _ source: inout SourceText) {
        let name = Naming.command(definition.name)
        let arguments: String
        switch command.arguments {
        case .none: arguments = "QAPIEmpty"
        case .named(let type): arguments = Naming.type(type)
        case .inline(let members):
            arguments = name + "Arguments"
            source.documentation(["Arguments of `\(definition.name)`."])
            writeObject("struct", arguments, "QAPIObjectValue, Equatable", members, definition, &source)
            source.line()
        }
        source.documentation(definition.documentation?.body ?? [])
        source.block("public enum \(name)Command: QAPICommand") { source in
            source.line("public typealias Arguments = \(arguments)")
            let result = command.returnsJSON ? "[JSONValue]" : command.returns.map(Naming.type) ?? "QAPIEmpty"
            source.line("public typealias Result = \(result)")
            source.line("public static let name = \"\(definition.name)\"")
            source.line("public static let allowsOutOfBand = \(command.allowsOutOfBand)")
        }
    }

    private func writeEvent(_ arguments: Arguments, _ definition: Definition, _ source: inout SourceText) {
        let members: [Member]
        switch arguments {
        case .none: members = []
        case .inline(let own): members = own
        case .named(let type): members = schema.members(ofStructure: type)
        }
        source.documentation(definition.documentation?.body ?? [])
        writeObject(
            "struct", Naming.command(definition.name) + "Event", "QAPIEvent, Equatable", members, definition, &source,
            "public static let name = \"\(definition.name)\"")
    }
}

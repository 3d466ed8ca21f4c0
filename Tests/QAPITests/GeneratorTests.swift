import Testing

@testable import QAPIGen

@Suite("The schema generator")
struct GeneratorTests {
    private func schema(_ text: String) throws -> Schema {
        var builder = SchemaBuilder()
        try builder.add(file: "x.json", text: Array(text.utf8), owner: 1)
        try SchemaChecker.check(builder.schema)
        return builder.schema
    }

    private func error(_ text: String) -> String? {
        do {
            _ = try schema(text)
            return nil
        } catch {
            return "\(error)"
        }
    }

    private func swift(_ text: String) throws -> String {
        SwiftWriter.write(try schema(text), owner: 1, target: "Test")
    }

    @Test(
        "A fault names file and line",
        arguments: [
            ("{ 'struct': 'A',\n  'data': { 'x': 'zz' } }", "x.json:2: error: unknown type 'zz'"),
            ("\n{ 'struct': 'A' }", "x.json:2: error: key 'data' is missing"),
            ("{ 'struct': 'A', 'data': {}, 'x': 'y' }", "x.json:1: error: unknown key 'x'"),
            ("{ 'zz': 'A' }", "x.json:1: error: expression is none of"),
            ("{ 'struct': 'A', 'data': {} }\n{ 'enum': 'A', 'data': [] }", "x.json:2: error: 'A' is already defined"),
            ("{ 'enum': 'A', 'data': [ 'x',\n 'x' ] }", "x.json:2: error: 'x' stands twice in 'data'"),
            ("{ 'struct': 'A', 'data': { 'x': 'str',\n'x': 'str' } }", "x.json:2: error: duplicate key 'x'"),
            ("{ 'struct': 'A', 'data': { 'x': 'str', '*x': 'str' } }", "x.json:1: error: member 'x' is there twice"),
            ("{ 'struct': 'A', 'base': 'A', 'data': {} }", "x.json:1: error: 'A' is its own base"),
            ("{ 'struct': 'A', 'data': {}", "x.json:1: error: expected '}'"),
            ("{ 'struct': 'A", "x.json:1: error: string has no closing quote"),
            ("##\n# @A:\n", "x.json:1: error: documentation block has no closing '##'"),
            ("##\n# @B:\n##\n{ 'struct': 'A', 'data': {} }", "x.json:1: error: documentation is for 'B'"),
            (
                "##\n# @A:\n# @y: no\n##\n{ 'struct': 'A', 'data': {} }",
                "x.json:5: error: documentation of 'A' describes"
            ),
            ("{ 'branch': 'U', 'value': 'v', 'data': 'A' }", "x.json:1: error: 'U' is not an open union"),
            ("{ 'alternate': 'A', 'data': { 'a': 'str', 'b': 'str' } }", "x.json:1: error: branch 'b' cannot be told"),
        ])
    func faults(_ text: String, _ expected: String) {
        #expect(error(text)?.hasPrefix(expected) == true, "\(error(text) ?? "no error")")
    }

    @Test("A branch may not repeat a member of the base")
    func clash() {
        let text = """
            { 'enum': 'E', 'data': [], 'open': true }
            { 'union': 'U', 'base': { 't': 'E', '*x': 'str' }, 'discriminator': 't', 'open': true, 'data': {} }
            { 'struct': 'A', 'data': { 'x': 'str' } }
            { 'branch': 'U', 'value': 'a', 'data': 'A' }
            """
        #expect(error(text) == "x.json:4: error: member 'x' of the branch clashes with the union's base")
    }

    @Test(
        "Names become Swift's", arguments: [("node-name", "nodeName"), ("backing_file", "backingFile"), ("in", "`in`")])
    func members(_ name: String, _ expected: String) { #expect(Naming.member(name) == expected) }

    @Test("Values that begin with a digit get an underscore, keywords backticks")
    func cases() throws {
        let text = try swift("{ 'enum': 'E', 'data': [ '2_5', 'default', 'io_uring' ] }")
        #expect(text.contains("case _2_5 = \"2_5\""))
        #expect(text.contains("case `default` = \"default\""))
        #expect(text.contains("case ioUring = \"io_uring\""))
    }

    @Test("A struct that holds itself is boxed, one that holds a list of itself is not")
    func recursion() throws {
        let text = try swift("{ 'struct': 'A', 'data': { '*next': 'A', 'all': [ 'A' ] } }")
        #expect(text.contains("public var next: QAPIBox<A>?"))
        #expect(text.contains("public var all: [A]"))
    }

    @Test("A struct named String does not hide Swift's")
    func string() throws {
        let text = try swift("{ 'struct': 'String', 'data': { 'str': 'str' } }")
        #expect(text.contains("public struct QAPIString:"))
        #expect(text.contains("public var str: Swift.String"))
    }

    @Test("Members of the base come first")
    func base() throws {
        let text = try swift(
            "{ 'struct': 'B', 'base': 'A', 'data': { 'b': 'int' } }\n{ 'struct': 'A', 'data': { 'a': 'int' } }")
        #expect(text.contains("public init(a: Int64, b: Int64)"))
    }

    @Test("Commands and events")
    func commands() throws {
        let text = try swift(
            "{ 'command': 'do_it-now', 'data': { '*x': 'int' } }\n{ 'event': 'IT_DONE', 'data': { 'x': 'int' } }")
        #expect(text.contains("public enum DoItNowCommand: QAPICommand"))
        #expect(text.contains("public typealias Arguments = DoItNowArguments"))
        #expect(text.contains("public struct ItDoneEvent: QAPIEvent"))
    }

    @Test("The manual lists what a command takes")
    func reference() throws {
        let text = "##\n# @go:\n#\n# Goes.\n#\n# @to: where\n##\n{ 'command': 'go', 'data': { '*to': 'str' } }"
        #expect(Reference.write(try schema(text), owners: ["Core", "X"]).contains("- `to` (`str`, optional): where"))
    }
}

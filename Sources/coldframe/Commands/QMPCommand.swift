import ArgumentParser
import QMPWire

/// `coldframe qmp NAME COMMAND key=value…`
struct QMP: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Send one QMP command and print what it returns.",
        discussion: """
            Arguments are given as key=value; a value that is JSON (a number, true, false, null, or text that begins \
            with a bracket, a brace or a quote) is sent as such, anything else as a string. Dots in keys make objects: \
            file.filename=/images/a.qcow2.
            """)

    @Argument(help: "Name of the agent.")
    var name: String
    @Argument(help: "The command, for example query-named-block-nodes.")
    var command: String
    @Argument(help: "Its arguments, as key=value.")
    var arguments: [String] = []

    func run() throws {
        let session = try Session(agent: name)
        let value = try session.execute(command, try Self.object(from: arguments))
        Terminal.write(json: value)
    }

    /// `a.b=1` as `{"a": {"b": 1}}`.
    static func object(from words: [String]) throws -> JSONObject {
        var object: JSONObject = [:]
        for word in words {
            guard let separator = word.firstIndex(of: "="), separator != word.startIndex else {
                throw ValidationError("'\(word)' is not of the form key=value")
            }
            let path = word[..<separator].split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            set(value(of: String(word[word.index(after: separator)...])), at: path[...], in: &object)
        }
        return object
    }

    private static func set(_ value: JSONValue, at path: ArraySlice<String>, in object: inout JSONObject) {
        guard let key = path.first else { return }
        if path.count == 1 {
            object[key] = value
        } else {
            var inner = object[key]?.objectValue ?? [:]
            set(value, at: path.dropFirst(), in: &inner)
            object[key] = .object(inner)
        }
    }

    private static func value(of text: String) -> JSONValue {
        let isJSON =
            ["true", "false", "null"].contains(text)
            || text.first.map { "{[\"-0123456789".contains($0) } ?? false
        guard isJSON, let value = try? JSONParser.parse(text) else { return .string(text) }
        return value
    }
}

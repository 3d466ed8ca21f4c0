import Glibc

/// `QAPIGen --output FILE --fragment NAME [--import MODULE]… [--lookup FILE]… FILE…`
///
/// Reads QAPI files and writes the Swift of one target. Files after `--lookup` declare types that are used but compiled
/// elsewhere.
@main
struct QAPIGen {
    static func main() {
        do {
            try Command(Array(CommandLine.arguments.dropFirst())).run()
        } catch {
            GeneratorFiles.report("\(error)")
            exit(1)
        }
    }
}

private struct UsageError: Error, CustomStringConvertible {
    let description: String
}

private struct Command {
    private var output: String?
    private var fragmentName = "GeneratedSchema"
    private var imports: [String] = []
    private var lookups: [String] = []
    private var inputs: [String] = []

    init(_ words: [String]) throws {
        var words = words[...]
        func operand(_ option: String) throws -> String {
            guard let value = words.popFirst() else { throw UsageError(description: "\(option) needs a value") }
            return value
        }
        while let word = words.popFirst() {
            switch word {
            case "--output": output = try operand(word)
            case "--fragment": fragmentName = try operand(word)
            case "--import": imports.append(try operand(word))
            case "--lookup": lookups.append(try operand(word))
            default: inputs.append(word)
            }
        }
    }

    func run() throws {
        guard let output else { throw UsageError(description: "--output is missing") }
        var schema = Schema()
        for path in lookups {
            for definition in try definitions(path) {
                if case .branch = definition.declaration { continue }
                try schema.add(definition)
            }
        }
        var own: [Definition] = []
        for path in inputs {
            for definition in try definitions(path) {
                try schema.add(definition)
                own.append(definition)
            }
        }
        try schema.check()
        var emitter = SwiftEmitter(schema: schema, own: own, fragmentName: fragmentName)
        guard GeneratorFiles.writeIfChanged(output, emitter.emit(imports: imports)) else {
            throw UsageError(description: "\(output): error: cannot be written")
        }
    }

    private func definitions(_ path: String) throws -> [Definition] {
        guard let text = GeneratorFiles.read(path) else {
            throw UsageError(description: "\(path):1: error: cannot be read")
        }
        var reader = SchemaReader(file: path, text: text)
        return try reader.expressions().compactMap { expression throws(SchemaError) in
            try SchemaParser.definition(expression)
        }
    }
}

import Glibc

/// The command line of the generator.
struct GeneratorCommand {
    private var target: String?
    private var output: String?
    private var lookups: [String] = []
    private var folders: [(name: String, path: String)] = []
    private var isReference = false
    private var files: [String] = []

    init(_ arguments: [String]) throws {
        var remaining = arguments[...]
        func next(after option: String) throws -> String {
            guard let value = remaining.popFirst() else {
                throw FileAccess.Failure(description: "error: \(option) needs a value")
            }
            return value
        }
        while let argument = remaining.popFirst() {
            switch argument {
            case "--target": target = try next(after: argument)
            case "--output": output = try next(after: argument)
            case "--lookup": lookups.append(try next(after: argument))
            case "--reference": isReference = true
            default: files.append(argument)
            }
        }
        if isReference {
            folders = try files.map { item in
                let parts = item.split(separator: "=", maxSplits: 1).map(String.init)
                guard parts.count == 2 else {
                    throw FileAccess.Failure(description: "error: expected NAME=FOLDER, not '\(item)'")
                }
                return (parts[0], parts[1])
            }
        }
    }

    func run() throws {
        if isReference {
            var builder = SchemaBuilder()
            for (index, folder) in folders.enumerated() {
                for file in try FileAccess.schemaFiles(in: folder.path) {
                    try builder.add(file: file, text: try FileAccess.read(file), owner: index)
                }
            }
            try SchemaChecker.check(builder.schema)
            if let bare = builder.schema.definitions.first(where: { $0.documentation == nil }) {
                throw SchemaError(bare.location, "'\(bare.name)' has no documentation")
            }
            print(Reference.write(builder.schema, owners: folders.map(\.name)), terminator: "")
            return
        }
        guard let target, let output, !files.isEmpty else {
            throw FileAccess.Failure(description: "error: --target, --output and schema files are needed")
        }
        var builder = SchemaBuilder()
        for file in lookups { try builder.add(file: file, text: try FileAccess.read(file), owner: 0) }
        for file in files { try builder.add(file: file, text: try FileAccess.read(file), owner: 1) }
        try SchemaChecker.check(builder.schema)
        try FileAccess.writeIfChanged(output, SwiftWriter.write(builder.schema, owner: 1, target: target))
    }
}

func exitWithFailure() -> Never { exit(1) }

import Foundation
import PackagePlugin

/// Generates `<Target>Schema.swift` from the files in a target's `schema` folder. The core's files are given to every
/// other target as well, since a module's schema uses the core's types.
@main
struct QAPIGenPlugin: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: Target) throws -> [Command] {
        let folder = target.directoryURL.appending(path: "schema")
        let files = try schemaFiles(in: folder)
        guard !files.isEmpty else { return [] }
        let core = context.package.directoryURL.appending(path: "Sources/QAPI/schema")
        let lookups = target.name == "QAPI" ? [] : try schemaFiles(in: core)
        let output = context.pluginWorkDirectoryURL.appending(path: "\(target.name)Schema.swift")
        return [
            .buildCommand(
                displayName: "QAPI schema of \(target.name)",
                executable: try context.tool(named: "QAPIGen").url,
                arguments: ["--target", target.name, "--output", output.path(percentEncoded: false)]
                    + lookups.flatMap { ["--lookup", $0.path(percentEncoded: false)] }
                    + files.map { $0.path(percentEncoded: false) },
                inputFiles: lookups + files,
                outputFiles: [output])
        ]
    }

    private func schemaFiles(in folder: URL) throws -> [URL] {
        try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { $0.pathExtension == "json" }
            .sorted { $0.path < $1.path }
    }
}

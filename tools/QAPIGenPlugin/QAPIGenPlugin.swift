import Foundation
import PackagePlugin

/// Generates a target's wire types from the QAPI files in its `schema/` folder.
@main
struct QAPIGenPlugin: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: Target) throws -> [Command] {
        let inputs = try Self.schemaFiles(of: target.directoryURL)
        let isCore = target.name == "QAPI"
        let lookups = isCore ? [] : try Self.schemaFiles(of: context.package.directoryURL.appending(path: "Sources/QAPI"))
        let output = context.pluginWorkDirectoryURL.appending(path: "\(target.name)Schema.swift")
        var arguments = ["--output", output.path(), "--fragment", isCore ? "CoreSchema" : "GeneratedSchema"]
        for module in isCore ? ["QMPWire"] : ["QAPI", "QMPWire"] { arguments += ["--import", module] }
        for file in lookups { arguments += ["--lookup", file.path()] }
        arguments += inputs.map { $0.path() }
        return [
            .buildCommand(
                displayName: "QAPI types of \(target.name)",
                executable: try context.tool(named: "QAPIGen").url,
                arguments: arguments, inputFiles: inputs + lookups, outputFiles: [output])
        ]
    }

    private static func schemaFiles(of directory: URL) throws -> [URL] {
        try FileManager.default.contentsOfDirectory(
            at: directory.appending(path: "schema"), includingPropertiesForKeys: nil
        ).filter { $0.pathExtension == "json" }.sorted { $0.path() < $1.path() }
    }
}

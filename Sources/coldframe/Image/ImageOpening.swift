import AgentCore
import BlockModules
import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// Opens images by their names.
@AgentActor
struct ImageOpening {
    let workshop: ImageWorkshop
    private let forceShare: Bool

    /// File names in images are followed into the folders of `paths` unless the user has said where to.
    init(_ options: ImageOpeningOptions, paths: [String]) throws {
        BranchTable.install(BlockModules.all.map(\.schema))
        var folders = options.allowBacking
        if folders.isEmpty { folders = paths.map(Self.folder) }
        workshop = ImageWorkshop(
            modules: BlockModules.all, allowedFolders: folders.map { (try? Files.canonicalPath($0)) ?? $0 })
        forceShare = options.forceShare
    }

    private static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    func definition(
        _ path: String, format: String?, isWritable: Bool = false, hasBacking: Bool = true
    ) throws -> JSONObject {
        let format = try format ?? Self.probe(path)
        var options: JSONObject = [
            "driver": .string(format), "read-only": .bool(!isWritable), "file": .object(Self.file(path)),
        ]
        if forceShare { options["force-share"] = true }
        if isWritable { options["discard"] = "unmap" }
        if !hasBacking, format == "qcow2" { options["backing"] = .null }
        return options
    }

    static func file(_ path: String) -> JSONObject { ["driver": "file", "filename": .string(path)] }

    func open(
        _ path: String, format: String?, isWritable: Bool = false, hasBacking: Bool = true
    ) async throws -> BlockNode {
        do {
            return try await workshop.open(
                definition(path, format: format, isWritable: isWritable, hasBacking: hasBacking))
        } catch {
            throw CommandFailure("Could not open '\(path)': \(ColdframeError(wrapping: error))")
        }
    }

    /// The format by the file's first bytes: what is not known is raw. Only for a file that the user has named; the
    /// format of a backing file is never guessed.
    static func probe(_ path: String) throws -> String {
        let file = try Descriptor.open(path, .readOnly)
        defer { file.close() }
        var head = [UInt8](repeating: 0, count: 512)
        let count = try head.withUnsafeMutableBytes { try file.preadFull(into: $0, at: 0) }
        let found = BlockModules.all.lazy.flatMap(\.blockDrivers).first { $0.recognises(head: Array(head[..<count])) }
        return found?.driverName ?? "raw"
    }

    /// The disk itself, or one of its internal snapshots by tag or id.
    func disk(of node: BlockNode, snapshot: String?) throws -> BlockNode {
        guard let snapshot else { return node }
        guard let bearer = node.driver as? any SnapshotBearing,
            let info = bearer.snapshots.first(where: { $0.name == snapshot })
                ?? bearer.snapshots.first(where: { $0.id == snapshot })
        else { throw CommandFailure("Image '\(node.driver.displayFilename)' has no snapshot '\(snapshot)'") }
        return BlockNode(name: "snapshot", driver: try bearer.openSnapshot(id: info.id))
    }

    /// The images of a chain, top first, each opened without the one that it is backed by. The chain has been opened as a
    /// whole before, so that every name in it has passed the gate.
    func layers(_ path: String, format: String?) async throws -> [BlockNode] {
        let whole = try await open(path, format: format)
        var information: JSONValue? = try await workshop.information(of: whole)
        try await workshop.close(whole)
        var layers: [BlockNode] = []
        while let image = information, let path = image["filename"]?.stringValue {
            layers.append(try await open(path, format: image["format"]?.stringValue, hasBacking: false))
            information = image["backing-image"]
        }
        return layers
    }
}

/// Runs work that blocks while the actor goes on.
func working<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await BlockingPool.shared.run(body)
}

import ColdframeKit
import LinuxSystem

/// Private servers for the disks of guests (`DiskServerFactory`).
struct GuestDiskServerFactory: DiskServerFactory {
    func start(socketPath: String, services: any AgentServices) async throws -> any DiskServer {
        try await GuestDiskServer(socketPath: socketPath)
    }
}

/// A server on a unix socket that only this user may open.
///
/// Workers belong to connections, so that exports share no thread: a request that is held on one delays no other,
/// with `ownWorkers` or without.
@AgentActor
final class GuestDiskServer: DiskServer {
    nonisolated let socketPath: String
    private let server: Server

    init(socketPath: String) async throws {
        self.socketPath = socketPath
        let listener = try Listening.unix(path: socketPath)
        server = try Server(listener: listener, socketPath: socketPath)
    }

    func add(_ node: BlockNode, exportName: String, isWritable: Bool, ownWorkers: Bool) async throws {
        let export = try NamedExport.make(name: exportName, node: node, isWritable: isWritable)
        guard server.exports.insert(export) else {
            throw ColdframeError(.alreadyExists, "NBD server already has export named '\(exportName)'")
        }
    }

    func remove(exportName: String) async {
        guard let export = server.exports.find(exportName) else { return }
        server.exports.remove(export)
        await export.stop()
    }

    func stop() async {
        await server.stop()
    }
}

extension NamedExport {
    /// Checks what the core cannot know.
    static func make(
        name: String, description: String? = nil, node: BlockNode, isWritable: Bool,
        isWritethrough: Bool = false, canMultiConnect: Bool = true, bitmaps: [ExportedBitmap] = []
    ) throws -> NamedExport {
        guard name.utf8.count <= WireLimit.stringByteCount else {
            throw ColdframeError(.invalidArgument, "export name '\(name)' too long")
        }
        if let description, description.utf8.count > WireLimit.stringByteCount {
            throw ColdframeError(.invalidArgument, "description '\(description)' too long")
        }
        if isWritable, node.isReadOnly {
            throw ColdframeError(.permission, "Cannot export read-only node as writable")
        }
        return NamedExport(
            name: name, description: description, node: node, isWritable: isWritable, isWritethrough: isWritethrough,
            clusterByteCount: node.driver.clusterByteCount, canMultiConnect: canMultiConnect, bitmaps: bitmaps)
    }
}

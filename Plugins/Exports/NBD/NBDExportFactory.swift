import ColdframeKit
import QAPI

/// `block-export-add` with type `nbd`.
struct NBDExportFactory: BlockExportFactory {
    let typeName = "nbd"
    let server: PublicServer

    func start(
        _ options: BlockExportOptions, node: BlockNode, services: any AgentServices,
        onGone: @escaping @Sendable @AgentActor () async -> Void
    ) async throws -> any BlockExport {
        guard let branch = options.branch as? BlockExportOptionsNbd else {
            throw ColdframeError(.invalidArgument, "Export '\(options.id)' is not of type nbd")
        }
        if branch.allocationDepth == true {
            throw ColdframeError(
                .unsupported, "The NBD server does not report allocation depth: leave allocation-depth out")
        }
        let name = branch.name ?? options.nodeName
        let isWritable = options.writable ?? false
        try server.checkFree(name: name)
        let bitmaps = try ExportedBitmap.find(
            branch.bitmaps ?? [], nodeName: options.nodeName, isWritable: isWritable, services: services)
        for exported in bitmaps { exported.bitmap.update { $0.isBusy = true } }
        let release: @Sendable () -> Void = {
            for exported in bitmaps { exported.bitmap.update { $0.isBusy = false } }
        }
        do {
            return try await server.add(
                id: options.id, name: name, description: branch.description, node: node, isWritable: isWritable,
                isWritethrough: options.writethrough ?? false, bitmaps: bitmaps, onEnd: release, onGone: onGone)
        } catch {
            release()
            throw error
        }
    }
}

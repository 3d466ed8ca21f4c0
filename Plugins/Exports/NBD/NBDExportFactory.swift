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
        if let bitmap = branch.bitmaps?.first {
            // Nodes have no bitmaps yet, so that none is found; QEMU looks for them after this check.
            try server.checkFree(name: name)
            let bitmapName =
                switch bitmap {
                case .local(let name): name
                case .external(let bitmap): bitmap.name
                }
            throw ColdframeError(.notFound, "Bitmap '\(bitmapName)' is not found")
        }
        return try await server.add(
            id: options.id, name: name, description: branch.description, node: node,
            isWritable: options.writable ?? false, isWritethrough: options.writethrough ?? false, onGone: onGone)
    }
}

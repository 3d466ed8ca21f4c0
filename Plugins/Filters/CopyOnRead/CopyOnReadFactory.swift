import BlockCopying
import ColdframeKit
import QAPI

/// Puts `copy-on-read` above a node.
struct CopyOnReadFactory: BlockDriverFactory {
    let driverName = "copy-on-read"
    let isFormat = false
    let isFilter = true

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsCor = try own(options.branch)
        // Copies are kept apart from writes that come through the filter; others would be overwritten by them.
        let file = try await context.child(
            "file", branch.file, role: .filtered, taking: [.writeUnchanged], unsharing: [.write])
        let layers = try branch.bottom.map { try context.frozenLayers(ofChild: "file", downTo: $0) }
        return CopyOnReadDriver(
            file, below: layers.map { LayerAllocation(layers: Array($0.dropFirst())) },
            isReadOnly: context.isReadOnly || file.isReadOnly)
    }
}

import ColdframeKit
import QAPI

extension Graph {
    /// A job is over that had made a node writable. Somebody who writes it by now keeps it so.
    ///
    /// In the lane, as every change of an image: a stream that ends meanwhile would put another image below a driver
    /// that is on its way out.
    func restoreReadOnly(_ node: GraphNode, in lane: SnapshotLane) async {
        // The lane itself does not throw.
        try? await lane.run {
            guard nodes.contains(where: { $0 === node }) else { return }
            await node.drained { try? await setReadOnly(node, true) }
            // An image that stays writable in the record does no harm.
            try? await recordShape()
        }
    }

    /// Makes one node read-only or writable, with the files that were defined inside it. It is drained.
    func setReadOnly(_ node: GraphNode, _ isReadOnly: Bool) async throws {
        guard node.block.isReadOnly != isReadOnly, var options = node.currentOptions else { return }
        options.readOnly = isReadOnly
        options.autoReadOnly = nil
        try await Reopening(graph: self).run([.init(node: node, options: options)])
    }
}

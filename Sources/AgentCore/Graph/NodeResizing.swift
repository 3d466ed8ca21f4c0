import ColdframeKit
import QAPI

/// `block_resize`: a node gets another size while nobody who counts on the old one uses it.
@AgentActor
struct NodeResizing {
    let graph: Graph

    func run(_ arguments: BlockResizeCommand.Arguments) async throws {
        // Devices are the guest's; the agent's disks are nodes.
        let node = try graph.find(nodeOnly: arguments.nodeName ?? arguments.device ?? "")
        guard let byteCount = UInt64(exactly: arguments.size) else {
            throw ColdframeError(.invalidArgument, "Parameter 'size' expects a >0 size")
        }
        guard !node.block.isReadOnly else { throw ColdframeError(.permission, "Image is read-only") }
        guard let driver = node.block.driver as? any Resizable else {
            throw ColdframeError(.unsupported, "Image format driver does not support resize")
        }
        let use = NodeUse(.holder("block resize"), role: "root", permissions: .resize, shared: .all)
        try node.add(use)
        defer { node.remove(use) }
        let gates = graph.withAncestors(of: [node]).map(\.gate)
        for gate in gates { await gate.beginDrain() }
        defer { for gate in gates { gate.endDrain() } }
        try await blocking { () throws(ColdframeError) in try driver.resize(toByteCount: byteCount) }
        node.block.bitmaps.resize(toDiskByteCount: node.block.byteCount)
    }
}

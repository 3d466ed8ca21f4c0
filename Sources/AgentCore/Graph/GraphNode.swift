import ColdframeKit
import QAPI

/// A node of the graph with what only the core knows: who made it, its children and its users.
@AgentActor
final class GraphNode {
    /// The core's own view of the node.
    nonisolated let block: BlockNode
    nonisolated let name: String
    /// What stands under the name now: another one when the node is reopened.
    nonisolated var body: NodeBody { block.body }
    var options: BlockdevOptions?
    /// Made by `blockdev-add` itself, and so deleted by `blockdev-del` only; children that were defined inside their
    /// parent go with it.
    var isMonitorOwned: Bool
    /// A module's own (the barrier): not listed, not addressable.
    let isPrivate: Bool
    /// Shows another node, its first child, with something added.
    let isFilter: Bool
    /// It stands otherwise than it was opened: a restarted agent has to be told.
    var hasChanged = false
    /// What a filter relies on ends with this image, down to which nobody changes the chain.
    weak var frozenBottom: GraphNode?
    /// Edges to the children, in the order in which the driver opened them.
    var children: [NodeUse] = []
    var uses: [NodeUse] = []
    /// Those that cover the node now.
    var drains: [GraphDrain] = []

    init(
        body: NodeBody, options: BlockdevOptions?, isMonitorOwned: Bool, isPrivate: Bool, isFilter: Bool = false
    ) {
        name = body.name
        block = BlockNode(body)
        self.options = options
        self.isMonitorOwned = isMonitorOwned
        self.isPrivate = isPrivate
        self.isFilter = isFilter
    }

    /// A user can name it and what is in it: it was given a name, or it is a disk of the guest.
    var isListed: Bool {
        if isMonitorOwned { return true }
        if isPrivate || options == nil { return false }
        return !name.hasPrefix("#") || uses.contains { if case .disk = $0.kind { true } else { false } }
    }

    func child(_ role: String) -> GraphNode? { children.first { $0.role == role }?.node }

    /// What a filter shows, with the edge to it.
    var filtered: (use: NodeUse, node: GraphNode)? {
        guard isFilter, let use = children.first, let node = use.node else { return nil }
        return (use, node)
    }

    /// The edge to the image that shows through where this one has nothing.
    var backingUse: NodeUse? { isFilter ? nil : children.first { $0.role == "backing" } }
    var backing: GraphNode? { backingUse?.node }

    /// The node below that what is not in this one comes from: the backing image, or what a filter shows.
    var below: GraphNode? { filtered?.node ?? backing }

    /// The node itself, or what it shows through filters only.
    var withoutFilters: GraphNode {
        var node = self
        while let (_, next) = node.filtered { node = next }
        return node
    }

    /// The image below in the backing chain, without filters in between.
    var nextLayer: GraphNode? { withoutFilters.backing?.withoutFilters }

    /// Nothing stands on it but what is no node and no job (QEMU's root nodes).
    var isRoot: Bool { uses.allSatisfy(\.isOfRoot) }

    /// Parents in the graph.
    var parents: [GraphNode] { uses.compactMap(\.parent) }

    /// No node stands above it whose content would change with it. Those who look at its snapshots do not count.
    var isRootForSnapshots: Bool { uses.allSatisfy { $0.isOfRoot || $0.isObserver } }

    /// Of the core itself and of the users that are no nodes: what a request to this node from outside passes.
    var ownGates: [RequestGate] {
        [block.gate] + uses.compactMap { $0.parent == nil ? $0.handle?.gate : nil }
    }

    /// The file at the bottom: the node's own, or that of the child that holds its image.
    var fileIdentity: FileIdentity? {
        if let backed = block.driver as? any FileBacked { return backed.fileIdentity }
        return (filtered?.node ?? child("file"))?.fileIdentity
    }

    /// The driver as one with snapshots, or QEMU's text.
    func snapshotBearer() throws -> any SnapshotBearing {
        guard !block.isReadOnly else {
            throw ColdframeError(.permission, "Device '\(name)' is read only")
        }
        guard let bearer = block.driver as? any SnapshotBearing else {
            throw ColdframeError(
                .unsupported,
                "Block format '\(block.driver.driverName)' used by device '\(name)' does not support internal snapshots"
            )
        }
        return bearer
    }
}

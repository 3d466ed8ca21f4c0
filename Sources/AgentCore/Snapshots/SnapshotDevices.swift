import ColdframeKit

/// The nodes that a snapshot job works on, found and checked in QEMU's order with QEMU's texts.
@AgentActor
struct SnapshotDevices {
    let nodes: [GraphNode]

    init(names: [String], graph: Graph) throws {
        guard !names.isEmpty else {
            throw ColdframeError(.invalidArgument, "At least one device is required for snapshot")
        }
        var nodes: [GraphNode] = []
        for name in names {
            guard let node = graph.find(nodeName: name) else {
                throw ColdframeError(.notFound, "No block device node '\(name)'")
            }
            guard !nodes.contains(where: { $0 === node }) else {
                throw ColdframeError(.invalidArgument, "Node '\(name)' is given twice in 'devices'")
            }
            nodes.append(node)
        }
        for node in nodes {
            // QEMU says so of read-only nodes as well.
            guard !node.block.isReadOnly, node.block.driver is any SnapshotBearing else {
                throw ColdframeError(
                    .unsupported, "Device '\(node.name)' is writable but does not support snapshots")
            }
        }
        self.nodes = nodes
    }

    /// The node that holds the state, which is one of the devices.
    func stateNode(named name: String) throws -> GraphNode {
        guard let node = nodes.first(where: { $0.name == name }) else {
            throw ColdframeError(.notFound, "vmstate block device '\(name)' does not exist")
        }
        guard node.block.driver is any VMStateBearing else {
            throw ColdframeError(.unsupported, "vmstate block device '\(name)' does not support snapshots")
        }
        return node
    }

    /// Every node's snapshot of that name; nil where there is none.
    func snapshots(tagged tag: String) -> [(node: GraphNode, snapshot: SnapshotInfo?)] {
        nodes.map { node in
            (node, (node.block.driver as? any SnapshotBearing)?.snapshots.first { $0.name == tag })
        }
    }

    /// As an intent names them.
    var intentImages: [Intent.Image] {
        nodes.map { Intent.Image($0) }
    }
}

import ColdframeKit
import QAPI
import QMPWire

/// One node on its way into the graph: collects the children that its driver opens, and closes them again if it fails.
@AgentActor
final class NodeOpening: OpenContext {
    let nodeName: String
    private let graph: Graph
    private let options: BlockdevOptions
    private let gate: ImageReferenceGate
    private var children: [(name: String, node: GraphNode, role: ChildRole)] = []

    init(graph: Graph, name: String, options: BlockdevOptions, gate: ImageReferenceGate) {
        self.graph = graph
        nodeName = name
        self.options = options
        self.gate = gate
    }

    var isReadOnly: Bool { options.readOnly ?? false }
    var autoReadOnly: Bool { options.autoReadOnly ?? false }

    func child(_ name: String, _ reference: BlockdevRef, role: ChildRole) async throws -> BlockNode {
        let node: GraphNode
        switch reference {
        case .reference(let nodeName):
            node = try graph.find(deviceOrNode: nodeName)
            if role == .image, !isReadOnly, node.block.isReadOnly, !autoReadOnly {
                throw ColdframeError(.permission, "Block node is read-only")
            }
        case .definition(let definition):
            node = try await graph.open(
                definition, inherited: InheritedOptions(parent: options, role: role), isMonitorOwned: false)
        }
        children.append((name, node, role))
        return node.block
    }

    func backingNamedByImage(filename: String, format: String?, imageFilename: String) async throws -> BlockNode {
        let path = try gate.resolve(filename, imageFilename: imageFilename)
        guard let format else {
            // Guessing a format from content lets a guest write itself a backing file: refused, as qemu-img does.
            throw ColdframeError(
                .permission,
                "Image '\(imageFilename)' names the backing file '\(filename)' without its format: give 'backing' in "
                    + "the node's options, or write the format into the image (qemu-img rebase -u -F)")
        }
        let definition: JSONValue = [
            "driver": .string(format), "read-only": true,
            "file": ["driver": "file", "filename": .string(path)],
        ]
        let options = try BlockdevOptions(QAPIInput(definition))
        return try await child("backing", .definition(options), role: .backing)
    }

    /// The driver is open: its children's users are recorded.
    func adopt(as node: GraphNode) throws {
        for (name, child, role) in children {
            try child.add(Self.use(by: node, name: name, role: role))
            node.children.append((name, child))
        }
    }

    /// The driver could not be opened: children that were made for it go.
    func giveUp() async {
        for (_, child, _) in children.reversed() {
            for use in child.uses where use.parent?.name == nodeName { child.remove(use) }
            // What cannot be closed cleanly was opened for nothing: there is no write to lose.
            if !child.isMonitorOwned, child.uses.isEmpty { try? await graph.close(child) }
        }
        children = []
    }

    private static func use(by parent: GraphNode, name: String, role: ChildRole) -> NodeUse {
        switch role {
        case .image:
            let writes: NodePermissions = parent.block.isReadOnly ? [] : [.write, .resize]
            return NodeUse(
                .parent(parent), role: name, permissions: writes.union(.consistentRead),
                shared: [.consistentRead, .writeUnchanged])
        case .backing:
            return NodeUse(
                .parent(parent), role: name, permissions: .consistentRead, shared: [.consistentRead, .writeUnchanged])
        }
    }
}

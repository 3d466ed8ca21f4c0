import ColdframeKit
import QAPI

/// What a driver that is opened in the place of another gets: the children that the node has.
@AgentActor
final class ReopenContext: GraphContext {
    private let node: GraphNode
    private let options: BlockdevOptions
    let graph: Graph
    nonisolated let nodeName: String

    init(_ node: GraphNode, _ options: BlockdevOptions, graph: Graph) {
        self.node = node
        self.options = options
        self.graph = graph
        nodeName = node.name
    }

    var isReadOnly: Bool { options.readOnly ?? false }
    var autoReadOnly: Bool { options.autoReadOnly ?? false }

    func child(_ name: String, _ reference: BlockdevRef, role: ChildRole) async throws -> BlockNode {
        try existing(name)
    }

    func children(
        _ name: String, _ references: [BlockdevRef], role: ChildRole, taking: [BlockPermission]
    ) async throws -> [ListedChild] {
        try node.children.compactMap { edge in
            guard edge.listName == name else { return nil }
            return ListedChild(name: edge.role, node: try existing(edge.role))
        }
    }

    private func existing(_ name: String) throws -> BlockNode {
        guard let handle = node.children.first(where: { $0.role == name })?.handle else {
            throw ColdframeError(.invalidArgument, "Cannot change the option '\(name)'")
        }
        return handle
    }

    func frozenLayers(ofChild name: String, downTo bottom: String) throws -> [BlockNode] {
        throw ColdframeError(.invalidArgument, "Cannot change the option 'bottom'")
    }

    func bitmap(named name: String, node nodeName: String) throws -> DirtyBitmap {
        throw ColdframeError(.invalidArgument, "Cannot change the option 'bitmap'")
    }

    func backingNamedByImage(filename: String, format: String?, imageFilename: String) async throws -> BlockNode {
        try existing("backing")
    }

    func dataFileNamedByImage(filename: String, imageFilename: String) async throws -> BlockNode {
        try existing("data-file")
    }

    func snapshot(ofChild name: String, id: String?, tag: String?) async throws -> any SnapshotLease {
        throw ColdframeError(.invalidArgument, "Cannot change the option 'snapshot'")
    }
}

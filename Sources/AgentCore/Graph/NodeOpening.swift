import ColdframeKit
import QAPI
import QMPWire

/// One node on its way into the graph: collects the children that its driver opens, and closes them again if it fails.
@AgentActor
final class NodeOpening: GraphContext {
    let nodeName: String
    let graph: Graph
    private let options: BlockdevOptions
    private let gate: ImageReferenceGate
    private var children: [Child] = []
    /// The chain that the driver relies on, as it was told to it.
    private var frozen: (child: String, top: GraphNode, bottom: GraphNode, layers: [GraphNode])?

    private struct Child {
        let name: String
        let node: GraphNode
        let role: ChildRole
        let taken: NodePermissions
        let unshared: NodePermissions
        /// Holds the child until its parent is a node and uses it itself.
        let hold: NodeUse
    }

    init(graph: Graph, name: String, options: BlockdevOptions, gate: ImageReferenceGate) {
        self.graph = graph
        nodeName = name
        self.options = options
        self.gate = gate
    }

    var isReadOnly: Bool { options.readOnly ?? false }
    var autoReadOnly: Bool { options.autoReadOnly ?? false }

    func child(_ name: String, _ reference: BlockdevRef, role: ChildRole) async throws -> BlockNode {
        try await child(name, reference, role: role, taking: [], unsharing: [])
    }

    func child(
        _ name: String, _ reference: BlockdevRef, role: ChildRole, taking: [BlockPermission],
        unsharing: [BlockPermission]
    ) async throws -> BlockNode {
        let (taken, unshared) = (NodePermissions(taking), NodePermissions(unsharing))
        let node: GraphNode
        switch reference {
        case .reference(let nodeName):
            node = try graph.find(deviceOrNode: nodeName)
            if role.isWritten, !isReadOnly, node.block.isReadOnly, !autoReadOnly {
                throw ColdframeError(.permission, "Block node is read-only")
            }
        case .definition(let definition):
            node = try await graph.open(
                definition, inherited: InheritedOptions(parent: options, role: role), isMonitorOwned: false)
        }
        let mayWrite = role.isWritten && !isReadOnly && !node.block.isReadOnly
        let handle = BlockNode(node.body)
        let hold = Self.use(.opening(nodeName), name: name, role: role, mayWrite: mayWrite, handle: handle)
            .demanding(taken, forbidding: unshared)
        do {
            if node.block.isReadOnly, !taken.isDisjoint(with: [.write, .writeUnchanged]) {
                throw ColdframeError(.permission, "Block node is read-only")
            }
            try node.add(hold)
            try await node.tellOwnership()
        } catch {
            node.remove(hold)
            if case .definition = reference { try? await graph.close(node) }
            throw error
        }
        children.append(
            Child(name: name, node: node, role: role, taken: taken, unshared: unshared, hold: hold))
        return handle
    }

    func frozenLayers(ofChild name: String, downTo bottom: String) throws -> [BlockNode] {
        guard let top = children.first(where: { $0.name == name })?.node else {
            throw ColdframeError(.notFound, "Node '\(nodeName)' has no child '\(name)'")
        }
        guard let lowest = graph.find(nodeName: bottom) else {
            throw ColdframeError(.notFound, "Bottom node '\(bottom)' not found")
        }
        guard !lowest.isFilter else {
            throw ColdframeError(.invalidArgument, "Bottom node '\(bottom)' is a filter")
        }
        let layers = try top.checkFreezable(downTo: lowest, as: name)
        frozen = (name, top, lowest, layers)
        return layers.map(\.block)
    }

    func bitmap(named name: String, node nodeName: String) throws -> DirtyBitmap {
        let bitmap = try BitmapRegistry(graph: graph).find(node: nodeName, name: name).bitmap
        try BitmapRegistry.check(bitmap, against: .use)
        return bitmap
    }

    func backingNamedByImage(filename: String, format: String?, imageFilename: String) async throws -> BlockNode {
        let gate = gate
        let path = try await blocking { () throws(ColdframeError) in
            try gate.resolve(filename, as: .backing, imageFilename: imageFilename)
        }
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

    func dataFileNamedByImage(filename: String, imageFilename: String) async throws -> BlockNode {
        let gate = gate
        let path = try await blocking { () throws(ColdframeError) in
            try gate.resolve(filename, as: .data, imageFilename: imageFilename)
        }
        let options = try BlockdevOptions(QAPIInput(["driver": "file", "filename": .string(path)]))
        return try await child("data-file", .definition(options), role: .data)
    }

    func snapshot(ofChild name: String, id: String?, tag: String?) async throws -> any SnapshotLease {
        guard let node = children.first(where: { $0.name == name })?.node else {
            throw ColdframeError(.notFound, "Node '\(nodeName)' has no child '\(name)'")
        }
        guard let bearer = node.block.driver as? any SnapshotBearing else {
            throw ColdframeError(
                .unsupported,
                "Block format '\(node.block.driver.driverName)' used by device '\(node.name)' does not support internal snapshots"
            )
        }
        let match = bearer.snapshots.first {
            (id == nil || $0.id == id) && (tag == nil || $0.name == tag) && !graph.hidesSnapshot($0, node)
        }
        guard let match else {
            let words = [id.map { "id '\($0)'" }, tag.map { "name '\($0)'" }].compactMap(\.self)
            throw ColdframeError(
                .notFound, "Snapshot with \(words.joined(separator: " and ")) does not exist on device '\(node.name)'")
        }
        return try await graph.leases.open(node: node, snapshotID: match.id, holder: "node '\(nodeName)'")
    }

    /// The driver is open: its children's users are recorded.
    func adopt(as node: GraphNode) throws {
        if let frozen {
            // While the driver was being opened others went on.
            let layers = try frozen.top.checkFreezable(downTo: frozen.bottom, as: frozen.child)
            guard layers.elementsEqual(frozen.layers, by: ===) else {
                throw ColdframeError(.busy, "The chain below node '\(nodeName)' was changed while it was opened")
            }
            node.frozenBottom = frozen.bottom
        }
        for child in children {
            child.node.remove(child.hold)
            let mayWrite = child.role.isWritten && !node.block.isReadOnly
            let use = Self.use(
                .parent(node), name: child.name, role: child.role, mayWrite: mayWrite, handle: child.hold.handle
            ).demanding(child.taken, forbidding: child.unshared)
            node.children.append(use)
            try child.node.add(use)
        }
    }

    /// The driver could not be opened: children that were made for it go.
    func giveUp() async {
        for child in children.reversed() {
            child.node.remove(child.hold)
            for use in child.node.uses where use.parent?.name == nodeName { child.node.remove(use) }
            // What cannot be closed cleanly was opened for nothing: there is no write to lose.
            try? await child.node.tellOwnership()
            if !child.node.isMonitorOwned, child.node.uses.isEmpty { try? await graph.close(child.node) }
        }
        children = []
    }

    static func use(
        _ kind: NodeUse.Kind, name: String, role: ChildRole, mayWrite: Bool, handle: BlockNode?
    ) -> NodeUse {
        switch role {
        case .image, .data:
            NodeUse(
                kind, role: name, permissions: mayWrite ? [.consistentRead, .write, .resize] : .consistentRead,
                shared: [.consistentRead, .writeUnchanged], handle: handle)
        case .backing:
            NodeUse(
                kind, role: name, permissions: .consistentRead, shared: [.consistentRead, .writeUnchanged],
                handle: handle)
        case .filtered:
            // What more it needs follows from the parent's own users.
            NodeUse(
                kind, role: name, permissions: .consistentRead, shared: .all, handle: handle, followsUsers: true)
        case .observed:
            NodeUse(kind, role: name, permissions: [], shared: .all, handle: handle)
        case .copyTarget:
            NodeUse(
                kind, role: name, permissions: mayWrite ? .write : [], shared: [.consistentRead, .writeUnchanged],
                handle: handle)
        case .replica:
            NodeUse(
                kind, role: name, permissions: [], shared: [.consistentRead, .writeUnchanged], handle: handle,
                followsUsers: true)
        }
    }
}

import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// The actions `blockdev-snapshot` and `blockdev-snapshot-sync`: puts an overlay above a node when it is cut; the node becomes
/// read-only when the transaction is committed.
@AgentActor
final class ExternalSnapshotStep: TransactionStep {
    enum Request {
        case node(BlockdevSnapshot)
        case file(BlockdevSnapshotSync)
    }
    private let request: Request
    private let context: SnapshotContext
    private var graph: Graph { context.graph }
    private var node: GraphNode?
    private var overlay: GraphNode?
    /// What the cut moved to the overlay; nil before it.
    private var moved: [NodeUse]?
    /// A file that the cut has made.
    private var newFile: NewImage?

    init(_ request: Request, context: SnapshotContext) {
        self.request = request
        self.context = context
    }

    let changesGraph = true

    /// The node and its overlay, as the client calls them.
    private var names: (node: String?, overlay: String?) {
        switch request {
        case .node(let snapshot): (snapshot.node, snapshot.overlay)
        case .file(let snapshot): (snapshot.nodeName, snapshot.snapshotNodeName ?? snapshot.snapshotFile)
        }
    }

    var overlayName: String? { names.overlay }

    var drainedNodes: [GraphNode] {
        [names.node, names.overlay].compactMap { $0.flatMap { graph.find(nodeName: $0) } }
    }

    func cut() async throws {
        let node = try find()
        self.node = node
        try node.checkUnblocked(for: .externalSnapshot)
        let image = node.block
        if !image.isReadOnly {
            do {
                try await blocking { () throws(ColdframeError) in try image.direct.flush() }
            } catch { throw ColdframeError(.io, "An IO error has occurred", errno: error.errno) }
        }
        let overlay = try await open(above: node)
        self.overlay = overlay
        try Self.check(overlay)
        moved = try graph.append(overlay, above: node)
        try FaultPoint.transactionCut.pass(node.name)
    }

    private func find() throws -> GraphNode {
        switch request {
        case .node(let snapshot): return try graph.find(deviceOrNode: snapshot.node)
        case .file(let snapshot):
            guard snapshot.device == nil, let name = snapshot.nodeName, let node = graph.find(nodeName: name) else {
                throw ColdframeError(
                    .notFound,
                    "Cannot find device='\(snapshot.device ?? "")' nor node-name='\(snapshot.nodeName ?? "")'")
            }
            return node
        }
    }

    private func open(above node: GraphNode) async throws -> GraphNode {
        switch request {
        case .node(let snapshot): return try graph.find(deviceOrNode: snapshot.overlay)
        case .file(let snapshot):
            guard let name = snapshot.snapshotNodeName else {
                throw ColdframeError(.invalidArgument, "New overlay node-name missing")
            }
            guard graph.find(nodeName: name) == nil else {
                throw ColdframeError(.alreadyExists, "New overlay node-name already in use")
            }
            let format = snapshot.format ?? "qcow2"
            let new = NewImage(path: snapshot.snapshotFile, format: format, graph: graph)
            newFile = new
            if snapshot.mode ?? .absolutePaths != .existing {
                try await new.create(byteCount: node.block.byteCount, backing: node)
            }
            var members: JSONObject = ["backing": .null, "read-only": .bool(node.block.isReadOnly)]
            for member in ["cache", "discard"] { members[member] = node.options?.object[member] }
            do { return try await new.open(name: name, members) } catch is QMPError {
                throw ColdframeError(.unsupported, "The overlay does not support backing images")
            }
        }
    }

    private static func check(_ overlay: GraphNode) throws {
        if overlay.uses.contains(where: { $0.permissions.contains(.consistentRead) }) {
            throw ColdframeError(.busy, "The overlay is already in use")
        }
        if overlay.isFilter { throw ColdframeError(.invalidArgument, "Filters cannot be used as overlays") }
        if overlay.backing != nil {
            throw ColdframeError(.invalidArgument, "The overlay already has a backing image")
        }
        guard overlay.block.driver is any Backed else {
            throw ColdframeError(.unsupported, "The overlay does not support backing images")
        }
    }

    func commit() async {
        guard let node else { return }
        do {
            try await graph.setReadOnly(node, true)
        } catch {
            context.logger.warning("node '\(node.name)' stays writable below its overlay: \(error)")
        }
    }

    func abort() async throws {
        if let node, let overlay, let moved { graph.unappend(overlay, above: node, moved) }
        moved = nil
        if newFile != nil, let overlay, overlay.uses.isEmpty { try await graph.close(overlay) }
        overlay = nil
        try await newFile?.remove()
    }

    func clean() async {
        // An overlay that nobody came to use goes with its step.
        if newFile != nil, let overlay { await graph.letGo(overlay) }
    }
}

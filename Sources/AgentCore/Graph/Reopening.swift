import ColdframeKit
import Logging
import QAPI
import QMPWire

/// Gives nodes other options while they are in use: all of them, or none.
///
/// A protocol switches by itself. Of a format the old driver is closed and a new one opened on the same children; then all
/// who use the node see the new one. The caller has drained the nodes.
@AgentActor
final class Reopening {
    struct Change {
        let node: GraphNode
        var options: BlockdevOptions
        /// nil leaves the backing image as it is.
        var backing: Backing?
        /// Done on a thread that may block while no driver has the format's image open, which is writable. What it throws is
        /// thrown once the image is open again.
        var between: (@Sendable () throws(ColdframeError) -> Void)?
        enum Backing {
            case none
            case node(GraphNode)
        }
    }

    private struct Undo {
        let node: GraphNode
        let options: BlockdevOptions
        let backing: GraphNode?
    }

    private let graph: Graph
    private var done: [Undo] = []
    /// Nodes whose driver has been closed, and not replaced yet: it must not write what it still knows.
    private var settled: [GraphNode] = []

    init(graph: Graph) { self.graph = graph }

    /// A throw leaves all nodes as they were, unless the error says otherwise.
    func run(_ changes: [Change]) async throws {
        for change in changes {
            do { try await carryOut(change) } catch {
                try await goBack(because: error)
            }
        }
    }

    private func carryOut(_ change: Change) async throws {
        let node = change.node
        guard let options = node.currentOptions else { return }
        done.append(Undo(node: node, options: options, backing: node.backing))
        switch change.backing {
        case .none?: try graph.setBacking(of: node, to: nil)
        case .node(let backing)?: try graph.setBacking(of: node, to: backing)
        case nil: break
        }
        try await reopen(node, change.options, between: change.between)
    }

    private func goBack(because cause: any Error) async throws -> Never {
        var left: [String] = []
        for undo in done.reversed() {
            do {
                if undo.node.block.driver is any Backed { try graph.setBacking(of: undo.node, to: undo.backing) }
                try await reopen(undo.node, undo.options)
            } catch {
                left.append("'\(undo.node.name)': \(ColdframeError(wrapping: error).message)")
            }
        }
        let cause = ColdframeError(wrapping: cause)
        guard left.isEmpty else {
            throw ColdframeError(
                cause.code, "\(cause.message); going back failed too for \(left.joined(separator: "; "))",
                errno: cause.errno)
        }
        throw cause
    }

    // MARK: One node

    private func reopen(
        _ node: GraphNode, _ options: BlockdevOptions, between: (@Sendable () throws(ColdframeError) -> Void)? = nil
    ) async throws {
        let isReadOnly = options.readOnly ?? false
        if isReadOnly, !node.block.isReadOnly,
            node.uses.contains(where: { !$0.permissions.isDisjoint(with: [.write, .writeUnchanged]) })
        {
            throw ColdframeError(
                .permission, "Read-only block node '\(node.name)' cannot support read-write users")
        }
        if let file = node.block.driver as? any AccessSwitching {
            if file.isReadOnly != isReadOnly {
                try await blocking { () throws(ColdframeError) in try file.setReadOnly(isReadOnly) }
            }
            node.options = options
            node.hasChanged = true
            return
        }
        let factory = try graph.factory(for: options.driver)
        if factory.reopening == .sameDriver {
            if !isReadOnly { try await switchChildren(of: node, isReadOnly: false) }
            try put(node, options, node.block.driver)
            if isReadOnly { try await switchChildren(of: node, isReadOnly: true) }
            return
        }
        if !settled.contains(where: { $0 === node }) { try await graph.settle(node, isNoted: between != nil) }
        settled.append(node)
        var failure: (any Error)?
        if let between {
            do throws(ColdframeError) { try await blocking(between) } catch { failure = error }
        }
        // Writable before the format that writes to it, read-only behind it.
        if !isReadOnly { try await switchChildren(of: node, isReadOnly: false) }
        let driver = try await factory.open(options, context: ReopenContext(node, options, graph: graph))
        try put(node, options, driver)
        settled.removeAll { $0 === node }
        try await node.tellOwnership()
        try await graph.takeUp(node)
        // What was done between may have changed it, also where it failed then.
        node.block.bitmaps.resize(toDiskByteCount: node.block.byteCount)
        if isReadOnly { try await switchChildren(of: node, isReadOnly: true) }
        if let failure { throw failure }
    }

    /// All who use the node see the driver with these options from here on.
    private func put(_ node: GraphNode, _ options: BlockdevOptions, _ driver: any BlockDriver) throws {
        let request = try Graph.requestOptions(options, isFilter: node.isFilter)
        let body = NodeBody(node.body, driver: driver, request: request)
        for use in node.uses { use.handle?.retarget(to: body) }
        node.block.retarget(to: body)
        node.options = options
        node.hasChanged = true
    }

    /// Children that were defined inside the node are as writable as it is.
    private func switchChildren(of node: GraphNode, isReadOnly: Bool) async throws {
        // The node may get another backing image, or a job's filter, while a child is opened: edges are known by identity.
        for edge in node.children where edge !== node.backingUse {
            guard let child = edge.node, node.children.contains(where: { $0 === edge }) else { continue }
            // What is needed as the node itself is needed.
            let isShown = edge.dependsOnUsers
            var edge = edge
            if !child.isMonitorOwned, child.block.isReadOnly != isReadOnly, var options = child.currentOptions {
                options.readOnly = isReadOnly
                // The edge itself stands in the way of less.
                if !isShown { edge = try await replace(edge, of: node, mayWrite: false) }
                try await reopen(child, options)
            }
            if !isShown {
                _ = try await replace(edge, of: node, mayWrite: !isReadOnly && !child.block.isReadOnly)
            }
        }
    }

    /// Returns the new edge, or the old one where that is none of the node's any more.
    private func replace(_ edge: NodeUse, of node: GraphNode, mayWrite: Bool) async throws -> NodeUse {
        guard let child = edge.node, let index = node.children.firstIndex(where: { $0 === edge }) else { return edge }
        let new = NodeOpening.use(
            .parent(node), name: edge.role, role: .image, mayWrite: mayWrite, handle: edge.handle)
        child.remove(edge)
        node.children[index] = new
        child.attach(new)
        try await child.tellOwnership()
        return new
    }
}

/// What a driver that is opened in the place of another gets: the children that the node has.
@AgentActor
private final class ReopenContext: OpenContext {
    private let node: GraphNode
    private let options: BlockdevOptions
    private let graph: Graph
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

    func object(id: String) -> (any UserObject)? { graph.findObject(id) }

    func backingNamedByImage(filename: String, format: String?, imageFilename: String) async throws -> BlockNode {
        try existing("backing")
    }

    func dataFileNamedByImage(filename: String, imageFilename: String) async throws -> BlockNode {
        try existing("data-file")
    }

    func snapshot(ofChild name: String, id: String?, tag: String?) async throws -> any SnapshotLease {
        throw ColdframeError(.invalidArgument, "Cannot change the option 'snapshot'")
    }

    func corruptionReport() -> @Sendable (ImageCorruption) -> Void {
        let name = nodeName
        return { [weak graph] corruption in
            Task { @AgentActor in graph?.reportCorruption(of: name, corruption) }
        }
    }

    func eventReport() -> @Sendable (_ name: String, _ data: JSONObject) -> Void {
        graph.limitedEvents.post
    }

    var logger: Logger { graph.logger }
}

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
        try await Reopening(graph: self).run([.init(node: node, options: options, backing: nil)])
    }
}

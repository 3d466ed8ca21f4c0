import ColdframeKit
import LinuxSystem
import QAPI

/// Gives nodes other options, and other children, while they are in use: all of them, or none.
///
/// First all children come where they are to be (`ReopenedEdges`), which is taken back as a whole if they cannot be there
/// together. Then the drivers follow: a protocol switches by itself; of a format the old driver is closed and a new one opened on
/// the children that it has by now, and all who use the node see the new one. What an old driver still writes goes to the
/// children that it was opened with. The caller has drained the nodes.
@AgentActor
final class Reopening {
    struct Change {
        let node: GraphNode
        var options: BlockdevOptions
        /// nil leaves the backing image as it is.
        var backing: Backing?
        /// Another node as `file`; nil leaves it as it is.
        var file: GraphNode?
        /// Done on a thread that may block while no driver has the format's image open, which is writable. What it throws is
        /// thrown once the image is open again.
        var between: (@Sendable () throws(ColdframeError) -> Void)?
        enum Backing {
            case none
            case node(GraphNode)
        }
    }

    private let graph: Graph
    private let edges = ReopenedEdges()
    private var changes: [Change] = []
    /// Options that the nodes had.
    private var former: [(node: GraphNode, options: BlockdevOptions)] = []
    private var imageBitmaps = ImageBitmaps()
    /// Nodes that are not as they were.
    private var touched: [GraphNode] = []
    /// Nodes whose driver has been closed, and not replaced yet: it must not write what it still knows.
    private var settled: [GraphNode] = []

    init(graph: Graph) { self.graph = graph }

    /// Brings a node's children where they are to be; nothing else changes, and nothing suspends. `run` or `takeBack` follows.
    func place(_ change: Change) throws {
        let node = change.node
        guard let options = node.currentOptions else { return }
        var change = change
        if let index = changes.firstIndex(where: { $0.node === node }) {
            let earlier = changes.remove(at: index)
            change.file = change.file ?? earlier.file
        } else {
            former.append((node, options))
        }
        changes.append(change)
        edges.place(change)
    }

    /// The nodes and all above them, each once.
    private var affected: [GraphNode] {
        changes.flatMap { [$0.node] + $0.node.ancestors }.reduce(into: []) { found, node in
            if !found.contains(where: { $0 === node }) { found.append(node) }
        }
    }

    /// Those of them that show another disk by what was placed.
    var nodesWithOtherImages: [GraphNode] { edges.withOtherImages(affected) }

    /// Those that have something beside their image in another disk by what was placed.
    var otherParts: [(node: GraphNode, part: NodeUse)] { edges.toOtherParts(affected) }

    func changes(_ node: GraphNode) -> Bool { changes.contains { $0.node === node } }

    /// Nobody has seen what was placed.
    func takeBack() { edges.takeBack() }

    /// A throw leaves all nodes as they were, unless the error says otherwise.
    /// - Parameter isRecorded: an agent that is started again finds the nodes as they are now, from before anybody writes there.
    func run(isRecorded: Bool = false) async throws {
        do { try edges.check(changes) } catch {
            takeBack()
            throw error
        }
        edges.holdFormerOnes()
        do {
            // Parents first: they write to those below.
            for change in GraphNode.childrenFirst(changes, { $0.node }, edges.formerChildren).reversed() {
                try await settle(
                    change.node, image: edges.formerImage(of: change.node), isNoted: change.between != nil)
            }
            if isRecorded { try FaultPoint.reopenClosed.pass() }
            for change in changes {
                let image = edges.formerImage(of: change.node)
                guard change.file != nil || image != change.node.fileIdentity else { continue }
                imageBitmaps.part(from: change.node, ifNot: image)
            }
            try await edges.tellOwnership()
            for change in GraphNode.childrenFirst(changes, { $0.node }, edges.children) {
                try await reopen(change.node, change.options, between: change.between)
            }
            if isRecorded {
                try FaultPoint.reopenOpened.pass()
                try await graph.recordShape()
                // Too late to fail.
                try? FaultPoint.reopenRecorded.pass()
            }
        } catch {
            try await goBack(because: error, isRecorded: isRecorded)
        }
        edges.letFormerOnesGo()
        for child in edges.formerOnes { await graph.letGo(child) }
    }

    /// The same for changes that come all at once.
    func run(_ changes: [Change]) async throws {
        do { for change in changes { try place(change) } } catch {
            takeBack()
            throw error
        }
        try await run()
    }

    private func goBack(because cause: any Error, isRecorded: Bool) async throws -> Never {
        var left: [String] = []
        func note(_ node: GraphNode, _ error: any Error) {
            left.append("'\(node.name)': \(ColdframeError(wrapping: error).message)")
        }
        let reached = former.filter { undo in touched.contains { $0 === undo.node } }
        for (node, _) in GraphNode.childrenFirst(reached, { $0.node }, edges.children).reversed() {
            do { try await settle(node, image: node.fileIdentity) } catch {
                note(node, error)
                // Nobody has written since it was opened.
                settled.append(node)
            }
        }
        edges.takeBack()
        imageBitmaps.comeBack()
        do { try await edges.tellOwnership() } catch { left.append(ColdframeError(wrapping: error).message) }
        for (node, options) in GraphNode.childrenFirst(reached, { $0.node }, edges.children) {
            do { try await reopen(node, options) } catch { note(node, error) }
        }
        // The record may have become the new one before it failed.
        if isRecorded { try? await graph.recordShape() }
        let cause = ColdframeError(wrapping: cause)
        guard left.isEmpty else {
            throw ColdframeError(
                cause.code, "\(cause.message); going back failed too for \(left.joined(separator: "; "))",
                errno: cause.errno)
        }
        throw cause
    }

    // MARK: One node

    /// Closes the driver of a node that gets another one.
    private func settle(_ node: GraphNode, image: FileIdentity?, isNoted: Bool = false) async throws {
        let driver = node.block.driver
        guard !(driver is any AccessSwitching), let options = node.options,
            try graph.factory(for: options.driver).reopening == .anotherDriver,
            !settled.contains(where: { $0 === node })
        else { return }
        touched.append(node)
        try await graph.settle(node, image: isNoted ? nil : image)
        settled.append(node)
    }

    private func reopen(
        _ node: GraphNode, _ options: BlockdevOptions, between: (@Sendable () throws(ColdframeError) -> Void)? = nil
    ) async throws {
        let isReadOnly = options.readOnly ?? false
        if isReadOnly, !node.block.isReadOnly { try node.checkNobodyWrites() }
        touched.append(node)
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
        try await settle(node, image: node.fileIdentity)
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

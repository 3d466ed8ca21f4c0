import ColdframeKit
import QAPI

/// `blockdev-reopen`, in the lane of the snapshots.
@AgentActor
func reopen(_ arguments: BlockdevReopenArguments, _ agent: Agent) async throws {
    let graph = agent.graph
    guard !arguments.options.isEmpty else {
        throw ColdframeError(.invalidArgument, "Parameter 'options' needs at least one node")
    }
    let nodes = arguments.options.compactMap { $0.nodeName.flatMap { graph.find(nodeName: $0) } }
    let drain = GraphDrain(nodes)
    _ = await drain.begin()
    defer { drain.end() }
    var namingBacking: Set<ObjectIdentifier> = []
    for node in nodes {
        let (image, driver, isWritable) = (node.block.direct, node.block.driver, !node.block.isReadOnly)
        let namesBacking = try await blocking { () throws(ColdframeError) -> Bool in
            if isWritable {
                do throws(ColdframeError) { try image.flush() } catch { throw error.prefixed("Error flushing drive") }
            }
            return (try? driver.information())?.backingFilename != nil
        }
        if namesBacking { namingBacking.insert(ObjectIdentifier(node)) }
    }
    // Behind the drain: the world may have changed while it was brought to rest.
    let reopening = Reopening(graph: graph)
    var effects = ReopenEffects(leases: agent.leases)
    do {
        for options in arguments.options {
            let request = try ReopenRequest(
                options, namesBacking: { namingBacking.contains(ObjectIdentifier($0)) }, graph: graph)
            try effects.note(request.change)
            try reopening.place(request.change)
        }
        try effects.check(reopening, force: arguments.force)
    } catch {
        reopening.takeBack()
        throw error
    }
    try await reopening.run(isRecorded: true)
}

/// What the changes do to those who rely on what the nodes show.
@AgentActor
private struct ReopenEffects {
    let leases: LeaseTable
    private var aboveBacking: [GraphNode] = []
    private var aboveFile: [GraphNode] = []

    init(leases: LeaseTable) { self.leases = leases }

    /// Before the node's children are others.
    mutating func note(_ change: Reopening.Change) throws {
        let node = change.node
        if change.backing != nil { aboveBacking += [node] + node.ancestors }
        guard let file = change.file else { return }
        try checkNobodyReadsSnapshots(of: node)
        // The same image, through another filter or none.
        if file.withoutFilters === node.child("file")?.withoutFilters { return }
        for user in [node] + node.ancestors {
            if let job = user.uses.lazy.compactMap(\.jobType).first {
                throw ColdframeError(
                    .busy,
                    "Node '\(node.name)' cannot become another disk: node '\(user.name)' is in use by block job: \(job)"
                )
            }
        }
        // Its own snapshots stay in its own file.
        aboveFile += node.ancestors
    }

    /// When all nodes have the children that they are to have.
    func check(_ reopening: Reopening, force: Bool?) throws {
        if let (node, part) = reopening.otherParts.first {
            throw ColdframeError(
                .busy,
                "Node '\(node.name)' has its '\(part.role)' in node '\(part.node?.name ?? "")', which would become another disk: "
                    + "remove node '\(node.name)' first, and add it again behind that")
        }
        for node in reopening.nodesWithOtherImages { try checkMovable(node, isReopened: reopening.changes(node)) }
        let shown = ShownSnapshots(leases: leases)
        try shown.refuseChange(below: aboveBacking, by: "Another backing image", force: force)
        try shown.refuseChange(below: aboveFile, by: "Another file of an image below", force: force)
    }

    /// Whether a node may show another disk.
    private func checkMovable(_ node: GraphNode, isReopened: Bool) throws {
        // A format knows tables of its image, as its clusters tell; a filter or a raw disk only shows what is below.
        guard isReopened || node.isFilter || node.block.driver.clusterByteCount == nil else {
            throw ColdframeError(
                .busy,
                "Node '\(node.name)' has its image in what is to be another disk: reopen it in the same list, so that it reads the "
                    + "tables that are there")
        }
        try checkNobodyReadsSnapshots(of: node)
        for bitmap in node.block.bitmaps.all where bitmap.state.isPersistent {
            try BitmapRegistry.check(bitmap, against: [.busy])
        }
    }

    /// They are read through the file that the node has.
    private func checkNobodyReadsSnapshots(of node: GraphNode) throws {
        let holders = leases.holders(node: node.name)
        guard holders.isEmpty else {
            throw ColdframeError(
                .busy,
                "Snapshots of node '\(node.name)' are open in \(holders.joined(separator: ", ")): close them there before the "
                    + "node gets another file")
        }
    }
}

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
        try effects.check(force: arguments.force)
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
        let holders = leases.holders(node: node.name)
        guard holders.isEmpty else {
            throw ColdframeError(
                .busy,
                "Snapshots of node '\(node.name)' are open in \(holders.joined(separator: ", ")): close them there before the "
                    + "node gets another file")
        }
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
        for bitmap in node.block.bitmaps.all where bitmap.state.isPersistent {
            try BitmapRegistry.check(bitmap, against: [.busy])
        }
        // Its own snapshots stay in its own file.
        aboveFile += node.ancestors
    }

    func check(force: Bool?) throws {
        let shown = ShownSnapshots(leases: leases)
        try shown.refuseChange(below: aboveBacking, by: "Another backing image", force: force)
        try shown.refuseChange(below: aboveFile, by: "Another file of an image below", force: force)
    }
}

import BlockCopying
import ColdframeKit
import LinuxSystem
import QAPI

/// Reads what images below a node hold into the node's own image, and takes them out of the chain.
@AgentActor
final class StreamJob: JobDriver, NodeUsing {
    let jobType = "stream"
    let isBlockJob = true
    private let request: StreamRequest
    private let graph: Graph
    private let lane: SnapshotLane
    private let copy: LayerCopy
    private let filter: GraphNode
    private(set) var uses: [NodeUse] = []
    /// The image was made writable for the job.
    private let wasReadOnly: Bool
    private var hasLeft = false

    /// Puts the filter above the top, which is drained and writable.
    init(_ request: StreamRequest, wasReadOnly: Bool, graph: Graph, lane: SnapshotLane) throws {
        self.request = request
        self.wasReadOnly = wasReadOnly
        self.graph = graph
        self.lane = lane
        let top = request.top
        let view = BlockNode(top.body)
        let reservations = RangeReservations()
        copy = LayerCopy(
            from: view, to: view, copying: LayerAllocation(layers: request.intermediates.map(\.block)),
            unlessIn: LayerAllocation(layers: [top.withoutFilters.block]), reservations: reservations)
        filter = try graph.insertFilter(
            .init(
                name: request.arguments.filterNodeName, nameErrorPrefix: "Could not create node: ", role: "file"),
            above: top
        ) { child, _ in ChainTopDriver("copy-on-read", child: child, reservations: reservations) }
        do {
            let shared: NodePermissions = [.consistentRead, .writeUnchanged]
            try hold(filter, "main node", shared: .all)
            try hold(top, "active node", .writeUnchanged, shared: shared.union(.write), view)
            for node in request.taken.dropFirst() { try hold(node, "intermediate node", shared: shared) }
        } catch {
            for use in uses { use.node?.remove(use) }
            graph.dropFilter(filter)
            throw error
        }
    }

    private func hold(
        _ node: GraphNode, _ role: String, _ permissions: NodePermissions = [], shared: NodePermissions,
        _ handle: BlockNode? = nil
    ) throws {
        let use = NodeUse(
            .job(jobType), role: role, permissions: permissions, shared: shared, handle: handle,
            filter: filter)
        try node.add(use)
        uses.append(use)
    }

    func run(_ control: any JobControl) async throws {
        // With nothing in between there is nothing to be read.
        guard !request.intermediates.isEmpty else { return }
        control.setProgress(current: 0, total: copy.source.byteCount)
        var ignored: ColdframeError?
        while true {
            try await control.checkpoint()
            switch await BlockingPool.shared.run({ [copy] in copy.run(control) }) {
            case .done:
                // What could not be read is not in the image: the chain stays.
                if let ignored { throw ignored.asJobError }
                return
            case .interrupted: continue
            case .failed(let failure):
                let error = failure.error
                switch control.report(error, isRead: true, policy: JobErrorPolicy(request.arguments.onError)) {
                case .report: throw error.asJobError
                case .ignore:
                    ignored = ignored ?? error
                    copy.skip()
                case .stop: break
                }
            }
        }
    }

    func prepare() async throws {
        try await lane.run { try await shorten() }
    }

    /// The image names what is below it now before it stands on it: at any moment an opening of the files shows the disk.
    private func shorten() async throws {
        let image = request.top.withoutFilters
        let drain = GraphDrain([filter, image])
        _ = await drain.begin()
        defer { drain.end() }
        // The image stays the job's until it stands on its new base: nobody deletes it in between.
        let stay = NodeUse(.job(jobType), role: "main node", permissions: [], shared: .all, handle: nil, filter: filter)
        try image.add(stay)
        defer { image.remove(stay) }
        await leave()
        guard let old = image.backing else { return }
        let base = request.taken.last?.below
        let named = base?.namedAsBacking
        do {
            try await graph.nameBackingFile(
                of: image, name: base == nil ? nil : request.arguments.backingFile ?? named?.filename,
                format: named?.format)
            try graph.setBacking(of: image, to: base)
        } catch { throw ColdframeError(wrapping: error).asJobError }
        // The chain of the record, if it stays, shows the same disk.
        try? await graph.recordShape()
        if old !== base { await graph.letGo(old) }
    }

    func abort() async {
        let drain = GraphDrain([filter])
        _ = await drain.begin()
        await leave()
        drain.end()
    }

    /// Takes the job out of the graph. The nodes are drained.
    private func leave() async {
        guard !hasLeft else { return }
        hasLeft = true
        for use in uses { use.node?.remove(use) }
        uses = []
        await graph.removeFilter(filter)
    }

    func clean() async {
        if wasReadOnly { await graph.restoreReadOnly(request.top, in: lane) }
    }
}

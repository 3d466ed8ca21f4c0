import BlockCopying
import ColdframeKit
import LinuxSystem
import QAPI

/// Writes what images in the middle of a chain hold into one below them, and takes them out of the chain. (The topmost image
/// is committed by a mirror into the base.)
@AgentActor
final class CommitJob: JobDriver, NodeUsing {
    let jobType = "commit"
    let isBlockJob = true
    private let request: CommitRequest
    private let graph: Graph
    private let lane: SnapshotLane
    private let copy: LayerCopy
    private let filter: GraphNode
    private(set) var uses: [NodeUse] = []
    /// The base was made writable for the job.
    private let baseWasReadOnly: Bool
    private var hasLeft = false

    /// Puts the filter above the top, which is drained; the base is writable.
    init(_ request: CommitRequest, baseWasReadOnly: Bool, graph: Graph, lane: SnapshotLane) throws {
        self.request = request
        self.baseWasReadOnly = baseWasReadOnly
        self.graph = graph
        self.lane = lane
        let (top, base) = (request.top, request.base)
        copy = LayerCopy(
            from: BlockNode(top.body), to: BlockNode(base.body),
            copying: LayerAllocation(layers: request.images.map(\.block)), unlessIn: nil, reservations: nil)
        filter = try graph.insertFilter(
            .init(name: request.arguments.filterNodeName, role: "backing", hidesContent: true), above: top
        ) { child, _ in ChainTopDriver("commit_top", child: child) }
        do {
            try hold(request.device, "main node", shared: .all)
            for node in request.taken {
                var shared: NodePermissions = [.write, .writeUnchanged]
                // What is a filter above the base only shows it.
                if node.isFilter, node.withoutFilters === base.withoutFilters { shared.insert(.consistentRead) }
                try hold(node, "intermediate node", shared: shared)
            }
            try hold(top, "top", as: .jobTarget(jobType), shared: .all, copy.source)
            var permissions: NodePermissions = [.consistentRead, .write]
            if base.block.byteCount < top.block.byteCount { permissions.insert(.resize) }
            try hold(base, "base", shared: .all)
            try hold(
                base, "root", as: .jobTarget(jobType), permissions, shared: [.consistentRead, .writeUnchanged],
                copy.target)
        } catch {
            for use in uses { use.node?.remove(use) }
            graph.dropFilter(filter)
            throw error
        }
    }

    private func hold(
        _ node: GraphNode, _ role: String, as kind: NodeUse.Kind? = nil, _ permissions: NodePermissions = [],
        shared: NodePermissions, _ handle: BlockNode? = nil
    ) throws {
        let use = NodeUse(
            kind ?? .job(jobType), role: role, permissions: permissions, shared: shared, handle: handle,
            filter: filter)
        try node.add(use)
        uses.append(use)
    }

    func run(_ control: any JobControl) async throws {
        control.setProgress(current: 0, total: copy.source.byteCount)
        do { try await graph.grow(request.base, toByteCount: copy.source.byteCount) } catch {
            throw ColdframeError(wrapping: error).asJobError
        }
        while true {
            try await control.checkpoint()
            switch await BlockingPool.shared.run({ [copy] in copy.run(control) }) {
            case .done: return
            case .interrupted: continue
            case .failed(let failure):
                let action = control.report(
                    failure.error, isRead: failure.isRead, policy: JobErrorPolicy(request.arguments.onError))
                if action == .report { throw failure.error.asJobError }
                // What is ignored is tried again, but not at once.
                if action == .ignore { await BlockingPool.shared.run { control.wait(milliseconds: 100) { false } } }
            }
        }
    }

    func prepare() async throws {
        try await lane.run { try await shorten() }
    }

    /// The base has all by now, durably. The images above name it before they stand on it: at any moment an opening of the
    /// files shows the disk.
    private func shorten() async throws {
        let base = request.base
        let drain = GraphDrain([filter, base])
        _ = await drain.begin()
        defer { drain.end() }
        let moving = filter.uses.filter { !$0.isJob }
        let old = request.top
        let named = base.namedAsBacking
        var renamed: [(node: GraphNode, filename: String?, format: String?)] = []
        do {
            for overlay in moving.compactMap({ $0.role == "backing" ? $0.parent : nil }) {
                let driver = overlay.block.driver
                let before = try await blocking { () throws(ColdframeError) in try driver.information() }
                renamed.append((overlay, before.backingFilename, before.backingFormat))
                try await graph.nameBackingFile(
                    of: overlay, name: request.arguments.backingFile ?? named.filename, format: named.format)
            }
        } catch {
            for (node, filename, format) in renamed {
                try? await graph.nameBackingFile(of: node, name: filename, format: format)
            }
            throw ColdframeError(wrapping: error).asJobError
        }
        for use in uses { use.node?.remove(use) }
        uses = []
        base.takeUnchecked(moving, from: filter)
        for use in moving { use.parent?.hasChanged = true }
        hasLeft = true
        await graph.removeFilter(filter)
        // The chain of the record, if it stays, shows the same disk.
        try? await graph.recordShape()
        await graph.letGo(old)
    }

    func abort() async {
        guard !hasLeft else { return }
        hasLeft = true
        let drain = GraphDrain([filter])
        _ = await drain.begin()
        for use in uses { use.node?.remove(use) }
        uses = []
        await graph.removeFilter(filter)
        drain.end()
    }

    func clean() async {
        if baseWasReadOnly { await graph.restoreReadOnly(request.base, in: lane) }
    }
}

extension Graph {
    /// Makes a disk as large as another that is written into it.
    func grow(_ node: GraphNode, toByteCount byteCount: UInt64) async throws {
        guard node.block.byteCount < byteCount else { return }
        guard let driver = node.block.driver as? any Resizable else {
            throw ColdframeError(.unsupported, "Image format driver does not support resize")
        }
        try await node.drained { try await Self.resize(node, driver, toByteCount: byteCount) }
    }
}

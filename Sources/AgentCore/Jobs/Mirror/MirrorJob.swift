import ColdframeKit
import LinuxSystem
import QAPI

/// Copies a node and keeps the copy up to date until it is told to end; then it may put the users of the source on the
/// copy. As `commit` the copy goes to an image below the source in its chain.
@AgentActor
final class MirrorJob: JobDriver, NodeUsing {
    let jobType: String
    let isBlockJob = true
    let canComplete = true
    private let request: MirrorRequest
    private let graph: Graph
    private let lane: SnapshotLane
    private let copy: MirrorCopy
    private let filter: GraphNode
    private(set) var uses: [NodeUse] = []
    private var isReady = false
    /// The users of the source go to the target at the end.
    private var pivots = false
    /// Holds source and target still from the moment at which they were found equal to the end.
    private var hold: GraphDrain?
    private var hasLeft = false
    private var hasPivoted = false

    /// Puts the filter above the source, which is drained; so is the target.
    init(_ request: MirrorRequest, granularity: UInt32, graph: Graph, lane: SnapshotLane) throws {
        self.request = request
        self.graph = graph
        self.lane = lane
        let (source, target) = (request.source, request.target)
        jobType = request.jobType
        let bitmap = DirtyBitmap(name: nil, granularity: granularity, diskByteCount: source.block.byteCount)
        let copy = MirrorCopy(
            source: BlockNode(source.body), target: BlockNode(target.body), bitmap: bitmap,
            unmaps: request.options.unmaps, countsHoles: request.countsHoles, only: request.layers)
        self.copy = copy
        let isBlocking = request.options.copyMode == .writeBlocking
        let targetView = copy.target
        filter = try graph.insertFilter(
            .init(name: request.options.filterNodeName, role: "backing", hidesContent: request.isCommit), above: source
        ) { sourceChild, _ in
            MirrorTopDriver("mirror_top", source: sourceChild, blocking: isBlocking ? (copy, targetView) : nil)
        }
        source.block.bitmaps.insert(bitmap)
        do { try request.isCommit ? holdChain() : hold(isBlocking: isBlocking) } catch {
            source.block.bitmaps.remove(bitmap)
            for use in uses { use.node?.remove(use) }
            uses = []
            graph.dropFilter(filter)
            throw error
        }
    }

    private func hold(isBlocking: Bool) throws {
        try hold(filter, "main node", shared: .all)
        try hold(
            request.source, "source", .consistentRead,
            shared: isBlocking ? [.consistentRead, .writeUnchanged] : .all.subtracting(.resize), copy.source)
        try hold(
            request.target, "target", as: .jobTarget(jobType), .write,
            shared: request.options.backsTarget ? [.writeUnchanged, .write] : .writeUnchanged, copy.target)
        if request.options.backsTarget { try graph.setBacking(of: request.target, to: request.source) }
    }

    /// The images that go out of the chain are nobody's to read meanwhile.
    private func holdChain() throws {
        try hold(filter, "main node", shared: .all)
        try hold(request.source, "source", shared: .all.subtracting(.resize), copy.source)
        for node in request.taken.dropFirst() {
            try hold(node, "intermediate node", shared: [.write, .writeUnchanged])
        }
        let isSmaller = request.target.block.byteCount < request.source.block.byteCount
        try hold(
            request.target, "target", as: .jobTarget(jobType), isSmaller ? [.write, .resize] : .write,
            shared: [.consistentRead, .writeUnchanged], copy.target)
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
        if request.isCommit {
            do { try await graph.grow(request.target, toByteCount: request.source.block.byteCount) } catch {
                throw ColdframeError(wrapping: error).asJobError
            }
        }
        guard request.isCommit || request.source.block.byteCount == request.target.block.byteCount else {
            throw ColdframeError(.invalidArgument, "Source and target image have different sizes")
        }
        if !request.copiesNothingAtFirst { try await mark(control) }
        while true {
            try await control.checkpoint()
            let outcome = await BlockingPool.shared.run { [copy, isReady] in copy.run(control, waits: isReady) }
            switch outcome {
            case .interrupted: continue
            case .equal:
                guard isReady else {
                    isReady = true
                    control.becomeReady()
                    continue
                }
                // Before anything is held still: a save or load that is under way may need the disks. Whoever comes later
                // is refused since the filter stands on them, and must not wait until a client finalizes the job.
                // Nor while the job is paused.
                control.setPausable(false)
                defer { control.setPausable(true) }
                let isHeld =
                    pivots
                    ? try await lane.run(for: control) { await holdIfEqual(control) } : await holdIfEqual(control)
                if isHeld { return }
            case .failed(let failure):
                let (error, isRead) = (failure.error, failure.isRead)
                let option = isRead ? request.options.onSourceError : request.options.onTargetError
                if control.report(error, isRead: isRead, policy: JobErrorPolicy(option)) == .report {
                    throw error.asJobError
                }
            }
        }
    }

    private func mark(_ control: any JobControl) async throws {
        var offset: UInt64 = 0
        let end = request.source.block.byteCount
        while offset < end {
            try await control.checkpoint()
            do {
                offset = try await blocking { [copy, offset] () throws(ColdframeError) in
                    try copy.markAll(control, from: offset)
                }
            } catch { throw error.asJobError }
        }
    }

    /// Whether both sides are equal with nobody writing; they are kept still then. Not if a pause came while others had the
    /// lane: it takes effect first.
    private func holdIfEqual(_ control: any JobControl) async -> Bool {
        control.setPausable(true)
        let isInterrupted = control.isInterrupted
        control.setPausable(false)
        if isInterrupted { return false }
        let drain = GraphDrain([filter, request.source, request.target])
        _ = await drain.begin()
        let target = request.target.block.direct
        let isFlushed = await BlockingPool.shared.run { (try? target.flush()) != nil }
        // A flush that failed is tried again, and told, on the job's own way.
        guard isFlushed, !copy.isDirty else {
            drain.end()
            return false
        }
        hold = drain
        return true
    }

    var isHeldStill: Bool { hold != nil }

    func complete() async throws {
        if let name = request.options.replaces, graph.find(nodeName: name) == nil {
            throw ColdframeError(.notFound, "Node name '\(name)' not found")
        }
        pivots = true
        copy.requestEnd()
    }

    func endSoftly() -> Bool {
        copy.requestEnd()
        return true
    }

    func prepare() async throws {
        if let failure = await leave(pivots: pivots) { throw failure }
    }

    func abort() async { await leave(pivots: false) }

    func clean() async {
        if request.targetWasReadOnly, !hasPivoted { await graph.restoreReadOnly(request.target, in: lane) }
    }

    /// Takes the job out of the graph. What keeps the users from going to the target is returned.
    @discardableResult
    private func leave(pivots: Bool) async -> (any Error)? {
        guard !hasLeft else { return nil }
        hasLeft = true
        let (source, target) = (request.source, request.target)
        let replaced = pivots ? replaced() : nil
        let drain = GraphDrain([filter, source, target] + [replaced].compactMap(\.self))
        _ = await drain.begin()
        source.block.bitmaps.remove(copy.bitmap)
        for use in uses { use.node?.remove(use) }
        uses = []
        var failure: (any Error)?
        if pivots {
            do { try await pivot(to: target) } catch { failure = error }
        }
        await graph.removeFilter(filter)
        hasPivoted = pivots && failure == nil
        drain.end()
        hold?.end()
        hold = nil
        if hasPivoted, let replaced { await graph.letGo(replaced) }
        await graph.letGo(target)
        return failure
    }

    /// What the target takes the place of; nil if it is gone.
    private func replaced() -> GraphNode? {
        guard let name = request.options.replaces else { return request.source }
        return graph.find(nodeName: name)
    }

    /// The record says where the clients' writes go before the first of them goes there.
    private func pivot(to target: GraphNode) async throws {
        let moved = try replace(with: target)
        do {
            try FaultPoint.pivotMoved.pass()
            try await graph.recordShape()
        } catch {
            for (node, uses) in moved { node.takeUnchecked(uses, from: target) }
            throw error
        }
        for use in moved.flatMap(\.uses) where use.parent === request.source {
            (request.source.block.driver as? any ChildChanging)?.childBecameWhole(named: use.role)
        }
        // Too late to fail.
        try? FaultPoint.pivotRecorded.pass()
    }

    /// Returns who was moved from where.
    private func replace(with target: GraphNode) throws -> [(node: GraphNode, uses: [NodeUse])] {
        guard let replaced = replaced() else {
            throw ColdframeError(.notFound, "Node name '\(request.options.replaces ?? "")' not found")
        }
        guard request.source.canReplace(replaced) else {
            throw ColdframeError(
                .invalidArgument,
                "Can no longer replace '\(replaced.name)' by '\(target.name)', because it can no longer be guaranteed that "
                    + "doing so would not lead to an abrupt change of visible data")
        }
        // Not those that stand below the target itself, nor the filter, which goes.
        let moving = replaced.uses.filter { use in
            guard let parent = use.parent else { return true }
            return parent !== filter && !target.reaches(parent)
        }
        for use in filter.uses + moving { use.parent?.hasChanged = true }
        if replaced === request.source {
            let above = filter.uses
            try target.take(above + moving, from: replaced, and: filter)
            return [(filter, above), (replaced, moving)]
        }
        try target.take(moving, from: replaced)
        return [(replaced, moving)]
    }
}

extension GraphNode {
    /// Puts users of two nodes, one above the other, on this one; all or none.
    fileprivate func take(_ moving: [NodeUse], from first: GraphNode, and second: GraphNode) throws {
        for use in moving {
            try use.node?.checkMovable([use])
            try check(use)
        }
        try take(moving.filter { $0.node === second }, from: second)
        try take(moving.filter { $0.node === first }, from: first)
    }
}

import ColdframeKit
import LinuxSystem
import QAPI

/// Copies a node and keeps the copy up to date until it is told to end; then it may put the users of the source on the
/// copy.
@AgentActor
final class MirrorJob: JobDriver {
    let jobType = "mirror"
    let isBlockJob = true
    let canComplete = true
    private let request: MirrorRequest
    private let graph: Graph
    private let copy: MirrorCopy
    private let filter: GraphNode
    private var uses: [NodeUse] = []
    private var isReady = false
    /// The users of the source go to the target at the end.
    private var pivots = false
    /// Holds source and target still from the moment at which they were found equal to the end.
    private var hold: GraphDrain?
    private var hasLeft = false

    /// Puts the filter above the source, which is drained; so is the target.
    init(_ request: MirrorRequest, granularity: UInt32, graph: Graph) throws {
        self.request = request
        self.graph = graph
        let (source, target) = (request.source, request.target)
        let bitmap = DirtyBitmap(name: nil, granularity: granularity, diskByteCount: source.block.byteCount)
        let copy = MirrorCopy(
            source: BlockNode(source.body), target: BlockNode(target.body), bitmap: bitmap, unmaps: true,
            onlyTop: request.arguments.sync == .top && source.backing != nil
                ? source.withoutFilters.block.driver as? any Layered : nil)
        self.copy = copy
        let isBlocking = request.arguments.copyMode == .writeBlocking
        let targetView = copy.target
        filter = try graph.insertFilter(
            .init(name: request.arguments.filterNodeName, role: "backing"), above: source
        ) { sourceChild, _ in
            MirrorTopDriver("mirror_top", source: sourceChild, blocking: isBlocking ? (copy, targetView) : nil)
        }
        source.block.bitmaps.insert(bitmap)
        let main = NodeUse(.job(jobType), role: "main node", permissions: [], shared: .all)
        let from = NodeUse(
            .job(jobType), role: "source", permissions: .consistentRead,
            shared: isBlocking ? [.consistentRead, .writeUnchanged] : .all.subtracting(.resize), handle: copy.source)
        let to = NodeUse(
            .jobTarget(jobType), role: "target", permissions: .write, shared: .writeUnchanged, handle: copy.target)
        do {
            for (use, node) in [(main, filter), (from, source), (to, target)] {
                try node.add(use)
                uses.append(use)
            }
        } catch {
            source.block.bitmaps.remove(bitmap)
            for use in uses { use.node?.remove(use) }
            uses = []
            throw error
        }
    }

    /// For a job that could not be made after all: what `init` did, while everything is still drained.
    func undo() async { await leave(pivots: false) }

    func run(_ control: any JobControl) async throws {
        guard request.source.block.byteCount == request.target.block.byteCount else {
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
                if await holdIfEqual() { return }
            case .failed(let error, let isRead):
                let option = isRead ? request.arguments.onSourceError : request.arguments.onTargetError
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

    /// Whether both sides are equal with nobody writing; they are kept still then.
    private func holdIfEqual() async -> Bool {
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

    func complete() async throws {
        if let name = request.arguments.replaces, graph.find(nodeName: name) == nil {
            throw ColdframeError(.notFound, "Node name '\(name)' not found")
        }
        try refuseGuests()
        try refuseParents()
        pivots = true
        copy.requestEnd()
    }

    /// A guest's disks are known by the names of their nodes, to saves and to an agent that is started again: they would
    /// find the old image there.
    private func refuseGuests() throws {
        for use in filter.uses {
            guard case .holder(let words) = use.kind else { continue }
            throw ColdframeError(
                .busy,
                "Node '\(request.source.name)' is a disk of \(words), which knows it by that name: end the mirror with "
                    + "block-job-cancel, which leaves a whole copy, and add the guest with the copy the next time")
        }
    }

    /// A node that is made again after a restart would be made on the source again.
    private func refuseParents() throws {
        guard graph.exportsWillMove != nil else { return }
        let parents = replaced()?.uses.compactMap(\.parent) ?? []
        for parent in parents where parent !== filter && !request.target.reaches(parent) {
            throw ColdframeError(
                .busy,
                "Node '\(parent.name)' stands on '\(request.source.name)' and would stand there again when the agent is "
                    + "restarted: end the mirror with block-job-cancel, which leaves a whole copy")
        }
    }

    func endSoftly() -> Bool {
        copy.requestEnd()
        return true
    }

    func prepare() async throws {
        if let failure = await leave(pivots: pivots) { throw failure }
    }

    func abort() async { await leave(pivots: false) }

    /// Takes the job out of the graph. What keeps the users from going to the target is returned.
    @discardableResult
    private func leave(pivots: Bool) async -> (any Error)? {
        guard !hasLeft else { return nil }
        hasLeft = true
        let (source, target) = (request.source, request.target)
        let drain = GraphDrain([filter, source, target])
        _ = await drain.begin()
        source.block.bitmaps.remove(copy.bitmap)
        for use in uses { use.node?.remove(use) }
        uses = []
        var failure: (any Error)?
        if pivots {
            do { try await pivot(to: target) } catch { failure = error }
        }
        await graph.removeFilter(filter)
        drain.end()
        hold?.end()
        hold = nil
        return failure
    }

    /// What the target takes the place of; nil if it is gone.
    private func replaced() -> GraphNode? {
        guard let name = request.arguments.replaces else { return request.source }
        return graph.find(nodeName: name)
    }

    /// The record says where the clients' writes go before the first of them goes there.
    private func pivot(to target: GraphNode) async throws {
        var moves = [(exportIDs(filter.uses), request.source.name)]
        if let replaced = replaced() { moves.append((exportIDs(replaced.uses), replaced.name)) }
        let all = moves.reduce(into: Set<String>()) { $0.formUnion($1.0) }
        if !all.isEmpty { try await graph.exportsWillMove?(all, target.name) }
        do {
            try replace(with: target)
        } catch {
            // What cannot be written now is what stood there before, and the next change writes it again.
            for (ids, name) in moves where !ids.isEmpty { try? await graph.exportsWillMove?(ids, name) }
            throw error
        }
    }

    private func exportIDs(_ uses: [NodeUse]) -> Set<String> {
        Set(uses.compactMap { use in if case .export(let id) = use.kind { id } else { nil } })
    }

    private func replace(with target: GraphNode) throws {
        guard let replaced = replaced() else {
            throw ColdframeError(.notFound, "Node name '\(request.arguments.replaces ?? "")' not found")
        }
        // Not those that stand below the target itself, nor the filter, which goes.
        let moving = replaced.uses.filter { use in
            guard let parent = use.parent else { return true }
            return parent !== filter && !target.reaches(parent)
        }
        if request.source.shows(replaced), replaced === request.source {
            try target.take(filter.uses + moving, from: replaced, and: filter)
        } else {
            try target.take(moving, from: replaced)
        }
    }
}

extension GraphNode {
    /// The other node is this one, or somewhere below it.
    func reaches(_ other: GraphNode) -> Bool {
        other === self || children.contains { $0.node?.reaches(other) ?? false }
    }

    /// Puts users of two nodes, one above the other, on this one; all or none.
    fileprivate func take(_ moving: [NodeUse], from first: GraphNode, and second: GraphNode) throws {
        for use in moving { try check(use) }
        try take(moving.filter { $0.node === second }, from: second)
        try take(moving.filter { $0.node === first }, from: first)
    }
}

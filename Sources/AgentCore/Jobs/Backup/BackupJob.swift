import BlockCopying
import ColdframeKit
import LinuxSystem
import QAPI
import Synchronization

/// Copies a node as it was when the job was made, while it goes on being written.
///
/// A filter above the node copies what is about to be overwritten; a thread of the job's own copies the rest. The moment
/// is that of `init`: the node is drained then, and writers that come later pass the filter.
@AgentActor
final class BackupJob: JobDriver, NodeUsing {
    let jobType = "backup"
    let isBlockJob = true
    private let request: BackupRequest
    private let graph: Graph
    private let copy: BlockCopy
    private let filter: GraphNode
    private let bitmap: BackupBitmap?
    private(set) var uses: [NodeUse] = []
    /// What the job's own requests pass: a drain of the source or of the target stops them here.
    private let sourceGate: BlockNode
    private let targetGate: BlockNode

    /// Puts the filter above the source, which is drained; so is the target.
    init(_ request: BackupRequest, graph: Graph) throws {
        self.request = request
        self.graph = graph
        let (source, target) = (request.source, request.target)
        let bitmap = try request.bitmap.map { try BackupBitmap($0, on: source, mode: request.bitmapMode) }
        self.bitmap = bitmap
        let cluster = max(target.block.driver.clusterByteCount ?? 0, BlockCopy.smallestClusterByteCount)
        sourceGate = BlockNode(source.body)
        targetGate = BlockNode(target.body)
        do {
            guard source.block.byteCount == target.block.byteCount else {
                throw ColdframeError(.invalidArgument, "Source and target image have different sizes")
            }
            if request.common.maxChunk > 0, request.common.maxChunk < Int64(cluster) {
                throw ColdframeError(
                    .invalidArgument,
                    "Required max-chunk (\(request.common.maxChunk)) is less than backup cluster size (\(cluster))")
            }
            var made: BlockCopy?
            filter = try graph.insertFilter(
                .init(
                    name: request.common.filterNodeName, nameErrorPrefix: "Could not create node: ", role: "file",
                    target: (target, "target")), above: source
            ) { sourceChild, targetChild in
                let copy = BlockCopy(
                    source: sourceChild, target: targetChild ?? sourceChild, clusterByteCount: cluster,
                    compresses: request.common.compress)
                made = copy
                return CopyBeforeWriteDriver(copy: copy)
            }
            guard let made else { preconditionFailure("a filter without its copy") }
            copy = made
            do { if request.backsTarget { try graph.setBacking(of: target, to: source) } } catch {
                graph.dropFilter(filter)
                throw error
            }
        } catch {
            bitmap?.finish(left: DirtyBits(diskByteCount: 0, granularity: cluster))
            throw error
        }
        if request.extent == .bitmap, let bits = request.bitmap?.bits { copy.restrict(to: bits) }
        for (node, handle) in [(filter, sourceGate), (target, targetGate)] {
            let use = NodeUse(
                .job("backup"), role: "main node", permissions: [], shared: .all, handle: handle, filter: filter)
            // Nobody can stand against a use that needs nothing and forbids nothing.
            try node.add(use)
            uses.append(use)
        }
    }

    func run(_ control: any JobControl) async throws {
        control.setProgress(current: 0, total: copy.progress.total)
        if request.extent == .none {
            // Nothing to do but to let the filter work until somebody cancels.
            while true {
                try await control.checkpoint()
                await BlockingPool.shared.run { control.wait(milliseconds: 1000) { false } }
            }
        }
        if request.extent == .top { try await skipUnallocated(control) }
        let position = Atomic<UInt64>(0)
        while true {
            try await control.checkpoint()
            let outcome = await BlockingPool.shared.run { [copy, sourceGate, targetGate] in
                Self.work(copy, from: position, gates: (sourceGate.gate, targetGate.gate), control)
            }
            switch outcome {
            case .done: return
            case .interrupted: continue
            case .failed(let failure):
                let policy = failure.isRead ? request.common.onSourceError : request.common.onTargetError
                let action = control.report(failure.error, isRead: failure.isRead, policy: policy)
                if action == .report { throw failure.error.asJobError }
                position.store(0, ordering: .releasing)
            }
        }
    }

    private enum Outcome {
        case done, interrupted
        case failed(CopyFailure)
    }

    /// The job's thread: copies until all is copied, somebody interrupts or a request fails.
    private nonisolated static func work(
        _ copy: BlockCopy, from position: borrowing Atomic<UInt64>, gates: (RequestGate, RequestGate),
        _ control: any JobControl
    ) -> Outcome {
        while !control.isInterrupted {
            guard let part = copy.nextDirty(from: position.load(ordering: .relaxed)) else {
                // What a writer was at, and failed to copy, is left behind the position.
                guard copy.nextDirty(from: 0) != nil else { return .done }
                position.store(0, ordering: .relaxed)
                continue
            }
            let byteCount: UInt64
            do {
                // Gates first, then the part: see BlockCopying.
                gates.0.enter()
                gates.1.enter()
                defer {
                    gates.1.leave()
                    gates.0.leave()
                }
                byteCount = try copy.copy(part, findsZeroes: true)
            } catch { return .failed(error) }
            position.store(part.upperBound, ordering: .relaxed)
            let progress = copy.progress
            control.setProgress(current: progress.current, total: progress.total)
            control.throttle(byteCount: byteCount)
        }
        return .interrupted
    }

    /// `sync: top`: what the topmost image has nothing of need not be copied.
    private func skipUnallocated(_ control: any JobControl) async throws {
        // An image that is no layer holds all that it shows.
        guard let layered = request.source.withoutFilters.block.driver as? any Layered else { return }
        var offset: UInt64 = 0
        let end = request.source.block.byteCount
        while offset < end {
            try await control.checkpoint()
            offset = try await blocking { [copy, sourceGate, offset] () throws(ColdframeError) in
                sourceGate.gate.enter()
                defer { sourceGate.gate.leave() }
                var offset = offset
                // A bounded piece of work between two checkpoints.
                for _ in 0..<1024 where offset < end {
                    let (isAllocated, byteCount) = try layered.allocation(at: offset, byteCount: end - offset)
                    if !isAllocated { copy.skip(offset..<offset + byteCount) }
                    offset += byteCount
                }
                return offset
            }
        }
    }

    func commit() async { bitmap?.finish(left: nil) }

    func abort() async { bitmap?.finish(left: copy.remaining) }

    func clean() async {
        for use in uses { use.node?.remove(use) }
        let drain = GraphDrain([filter])
        _ = await drain.begin()
        await graph.removeFilter(filter)
        drain.end()
        await graph.letGo(request.target)
    }
}

extension ColdframeError {
    /// An I/O error as QEMU's jobs tell it: the text of its errno.
    var asJobError: ColdframeError {
        ColdframeError(code, SystemError.text(errno: errno), errno: errno)
    }
}

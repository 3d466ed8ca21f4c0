import BlockCopying
import ColdframeKit
import QAPI

/// What a mirror was asked for, checked as QEMU checks it, in its order and with its texts. A commit of the topmost image is
/// a mirror into the base.
@AgentActor
struct MirrorRequest {
    /// What a client may choose.
    struct Options {
        var replaces: String?
        var sync = MirrorSyncMode.full
        var granularity: UInt32?
        var bufferByteCount: Int64?
        var onSourceError: BlockdevOnError?
        var onTargetError: BlockdevOnError?
        var filterNodeName: String?
        var copyMode: MirrorCopyMode?
        var unmaps = true
        /// The target shows the source where it has nothing itself.
        var backsTarget = false
        /// The target was made for the mirror: what is not written there reads as zeros already.
        var targetIsNew = false
    }
    let jobType: String
    let options: Options
    let source: GraphNode
    let target: GraphNode
    let granularity: UInt32?
    /// Only what these images hold is copied; nil for all that is no hole.
    let layers: LayerAllocation?
    /// The images of a commit that go out of the chain.
    let taken: [GraphNode]
    /// The base of a commit was made writable for it.
    let targetWasReadOnly: Bool
    /// Holes of the source count as bytes to be copied: where the target gives no space back QEMU writes all of it.
    var countsHoles: Bool { !options.targetIsNew && target.currentOptions?.discard != .unmap }
    var isCommit: Bool { jobType == "commit" }
    /// Nothing is copied but what is written from now on.
    var copiesNothingAtFirst: Bool { options.sync == .none }

    init(_ options: Options, source: GraphNode, target: GraphNode, graph: Graph) throws {
        jobType = "mirror"
        taken = []
        targetWasReadOnly = false
        self.options = options
        self.source = source
        self.target = target
        granularity = options.granularity.flatMap { $0 == 0 ? nil : $0 }
        let image = source.withoutFilters
        layers = options.sync == .top && image.backing != nil ? LayerAllocation(layers: [image.block]) : nil
        if let granularity {
            guard granularity >= 512, granularity <= 64 << 20 else {
                throw ColdframeError(
                    .invalidArgument, "Parameter 'granularity' expects a value in range [512B, 64MB]")
            }
            guard granularity.nonzeroBitCount == 1 else {
                throw ColdframeError(.invalidArgument, "Parameter 'granularity' expects a power of 2")
            }
        }
        try source.checkUnblocked(for: .mirrorSource)
        try target.checkUnblocked(for: .mirrorTarget)
        if let name = options.replaces { try checkReplaceable(name, graph: graph) }
        guard options.sync != .incremental, options.sync != .bitmap else {
            throw ColdframeError(
                .invalidArgument, "Sync mode '\(options.sync.rawValue)' not supported")
        }
        guard options.bufferByteCount ?? 0 >= 0 else {
            throw ColdframeError(.invalidArgument, "Invalid parameter 'buf-size'")
        }
        guard source.withoutFilters !== target.withoutFilters else {
            throw ColdframeError(.invalidArgument, "Can't mirror node into itself")
        }
        if layers != nil, !(image.block.driver is any Layered) {
            throw ColdframeError(
                .unsupported,
                "Driver '\(source.block.driver.driverName)' does not tell what the topmost image holds: use sync full")
        }
    }

    /// The base is writable.
    init(_ commit: CommitRequest, baseWasReadOnly: Bool) {
        jobType = "commit"
        let arguments = commit.arguments
        options = Options(
            onSourceError: arguments.onError, onTargetError: arguments.onError,
            filterNodeName: arguments.filterNodeName)
        source = commit.top
        target = commit.base
        granularity = nil
        layers = LayerAllocation(layers: commit.images.map(\.block))
        taken = commit.taken
        targetWasReadOnly = baseWasReadOnly
    }

    private func checkReplaceable(_ name: String, graph: Graph) throws {
        guard let node = graph.find(nodeName: name) else {
            throw ColdframeError(.notFound, "Failed to find node with node-name='\(name)'")
        }
        try node.checkUnblocked(for: .replace)
        guard source.canReplace(node) else {
            throw ColdframeError(
                .invalidArgument,
                "Cannot replace '\(name)' by a node mirrored from '\(source.name)', because it cannot be guaranteed "
                    + "that doing so would not lead to an abrupt change of visible data")
        }
        guard node.block.byteCount == source.block.byteCount else {
            throw ColdframeError(
                .invalidArgument, "cannot replace image with a mirror image of different size")
        }
    }
}

extension Graph {
    /// For commands that need a node without parents; QEMU's texts.
    func findRoot(_ name: String) throws -> GraphNode {
        let node = try find(deviceOrNode: name)
        guard node.isRoot else { throw ColdframeError(.busy, "Need a root block node") }
        return node
    }
}

import ColdframeKit
import QAPI

/// The actions of `transaction` on dirty bitmaps. Each looks its bitmap up when it is cut: an earlier action of the same
/// transaction may have made it.
@AgentActor
enum BitmapSteps {
    /// nil if the action is about something else.
    static func step(for action: TransactionAction, graph: Graph) -> (any TransactionStep)? {
        let bitmaps = BitmapRegistry(graph: graph)
        switch action.branch {
        case let request as BlockDirtyBitmapAdd:
            return AddBitmapStep(request, bitmaps: bitmaps)
        case let request as BlockDirtyBitmapMerge:
            return ChangeBitsStep(nodes: request.touchedNames, target: request.node, graph: graph) {
                try bitmaps.merge(request)
            }
        case let bitmap as BlockDirtyBitmap:
            switch action.type {
            case "block-dirty-bitmap-clear":
                return ChangeBitsStep(nodes: [bitmap.node], target: bitmap.node, graph: graph) {
                    let found = try bitmaps.find(node: bitmap.node, name: bitmap.name).bitmap
                    try BitmapRegistry.check(found, against: .change)
                    return (found, found.clear())
                }
            case "block-dirty-bitmap-enable":
                return SetRecordingStep(bitmap, to: true, bitmaps: bitmaps)
            case "block-dirty-bitmap-disable":
                return SetRecordingStep(bitmap, to: false, bitmaps: bitmaps)
            default:
                return RemoveBitmapStep(bitmap, bitmaps: bitmaps)
            }
        default:
            return nil
        }
    }
}

@AgentActor
private final class AddBitmapStep: TransactionStep {
    private let request: BlockDirtyBitmapAdd
    private let bitmaps: BitmapRegistry
    private var added: (node: GraphNode, bitmap: DirtyBitmap)?

    init(_ request: BlockDirtyBitmapAdd, bitmaps: BitmapRegistry) {
        self.request = request
        self.bitmaps = bitmaps
    }

    var drainedNodes: [GraphNode] { bitmaps.graph.find(nodeName: request.node).map { [$0] } ?? [] }

    func cut() async throws {
        let bitmap = try await bitmaps.add(request)
        added = (try bitmaps.graph.find(deviceOrNode: request.node), bitmap)
    }

    func abort() async throws {
        // Nothing is stored before the node is closed.
        if let added { added.node.block.bitmaps.remove(added.bitmap) }
        added = nil
    }
}

/// Notes what is written between the cut of a step and its end, which may be long behind it when a snapshot's state streams:
/// an abort must not forget those writes.
@AgentActor
private struct WritesSince {
    private let node: GraphNode
    private let bitmap: DirtyBitmap

    init(_ like: DirtyBitmap, on node: GraphNode) {
        self.node = node
        bitmap = DirtyBitmap(name: nil, granularity: like.granularity, diskByteCount: like.diskByteCount)
        node.block.bitmaps.insert(bitmap)
    }

    @discardableResult
    func end() -> DirtyBits {
        node.block.bitmaps.remove(bitmap)
        return bitmap.bits
    }
}

/// Clear and merge: keeps the bits as they were.
@AgentActor
private final class ChangeBitsStep: TransactionStep {
    private let nodes: Set<String>
    private let target: String
    private let graph: Graph
    private let change: @AgentActor () throws -> (target: DirtyBitmap, before: DirtyBits)
    private var changed: (target: DirtyBitmap, before: DirtyBits)?
    private var since: WritesSince?

    /// - Parameter target: the node of the bitmap that changes.
    init(
        nodes: Set<String>, target: String, graph: Graph,
        _ change: @escaping @AgentActor () throws -> (target: DirtyBitmap, before: DirtyBits)
    ) {
        self.nodes = nodes
        self.target = target
        self.graph = graph
        self.change = change
    }

    var drainedNodes: [GraphNode] { nodes.sorted().compactMap { graph.find(nodeName: $0) } }

    func cut() async throws {
        let made = try change()
        changed = made
        if made.target.state.isRecording, let node = graph.find(nodeName: target) {
            since = WritesSince(made.target, on: node)
        }
    }

    func commit() async { since?.end() }

    func abort() async throws {
        let written = since?.end()
        since = nil
        guard let bitmap = changed?.target, var before = changed?.before else { return }
        changed = nil
        if let written { before.formUnion(written) }
        bitmap.restore(before)
    }
}

/// Enable and disable.
@AgentActor
private final class SetRecordingStep: TransactionStep {
    private let reference: BlockDirtyBitmap
    private let isRecording: Bool
    private let bitmaps: BitmapRegistry
    private var changed: (bitmap: DirtyBitmap, before: DirtyBits)?
    private var since: WritesSince?

    init(_ reference: BlockDirtyBitmap, to isRecording: Bool, bitmaps: BitmapRegistry) {
        self.reference = reference
        self.isRecording = isRecording
        self.bitmaps = bitmaps
    }

    var drainedNodes: [GraphNode] { bitmaps.graph.find(nodeName: reference.node).map { [$0] } ?? [] }

    func cut() async throws {
        let (node, bitmap) = try bitmaps.find(node: reference.node, name: reference.name)
        try BitmapRegistry.check(bitmap, against: .use)
        guard bitmap.state.isRecording != isRecording else { return }
        changed = (bitmap, bitmap.bits)
        bitmap.update { $0.isRecording = isRecording }
        if !isRecording { since = WritesSince(bitmap, on: node) }
    }

    func commit() async { since?.end() }

    func abort() async throws {
        let written = since?.end()
        since = nil
        guard let (bitmap, before) = changed else { return }
        changed = nil
        bitmap.update { $0.isRecording = !isRecording }
        if isRecording {
            // What it noted meanwhile it would not have.
            bitmap.restore(before)
        } else if let written {
            bitmap.updateBits { $0.formUnion(written) }
        }
    }
}

/// Removes a bitmap: from its image when it is cut, from its node when the transaction is committed. After an abort it
/// is stored again when its node is closed.
@AgentActor
private final class RemoveBitmapStep: TransactionStep {
    private let reference: BlockDirtyBitmap
    private let bitmaps: BitmapRegistry
    private var removed: (node: GraphNode, bitmap: DirtyBitmap)?

    init(_ reference: BlockDirtyBitmap, bitmaps: BitmapRegistry) {
        self.reference = reference
        self.bitmaps = bitmaps
    }

    var drainedNodes: [GraphNode] { bitmaps.graph.find(nodeName: reference.node).map { [$0] } ?? [] }

    func cut() async throws {
        let (node, bitmap) = try bitmaps.find(node: reference.node, name: reference.name)
        try BitmapRegistry.check(bitmap, against: [.busy, .readOnly])
        bitmap.update { $0.isBusy = true }
        removed = (node, bitmap)
        try await bitmaps.removeStored(bitmap, of: node)
    }

    func commit() async {
        if let removed { removed.node.block.bitmaps.remove(removed.bitmap) }
    }

    func abort() async throws {
        removed?.bitmap.update { $0.isBusy = false }
        removed = nil
    }
}

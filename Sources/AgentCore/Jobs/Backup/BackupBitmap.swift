import ColdframeKit
import QAPI

/// The dirty bitmap of a backup: frozen while the job works, its writes going to a successor.
@AgentActor
final class BackupBitmap {
    let bitmap: DirtyBitmap
    private let node: GraphNode
    private let mode: BitmapSyncMode
    private let successor: DirtyBitmap
    private var isReleased = false

    /// Freezes the bitmap.
    init(_ bitmap: DirtyBitmap, on node: GraphNode, mode: BitmapSyncMode) throws {
        // If the result goes into it, it must be one that can take it.
        if mode != .never { try BitmapRegistry.check(bitmap, against: .change) }
        try BitmapRegistry.check(bitmap, against: .busy)
        self.bitmap = bitmap
        self.node = node
        self.mode = mode
        let wasRecording = bitmap.state.isRecording
        successor = DirtyBitmap(name: nil, granularity: bitmap.granularity, diskByteCount: bitmap.diskByteCount)
        successor.update { $0.isRecording = wasRecording }
        node.block.bitmaps.insert(successor)
        bitmap.update { [successor] state in
            state.isRecording = false
            state.isBusy = true
            state.successor = successor
        }
    }

    /// Ends the freeze by what the mode says.
    /// - Parameter left: what a failed backup has not copied; nil after success.
    func finish(left: DirtyBits?) {
        guard !isReleased else { return }
        isReleased = true
        let isSuccess = left == nil
        guard isSuccess || mode == .always, mode != .never else { return reclaim() }
        // What was copied is forgotten: the successor takes the bitmap's place.
        let state = bitmap.state
        node.block.bitmaps.remove(bitmap)
        successor.update { new in
            new.name = state.name
            new.isPersistent = state.isPersistent
        }
        if let left { successor.updateBits { $0.formUnion(left) } }
    }

    /// The bitmap goes on with what it had, and what was written since.
    private func reclaim() {
        node.block.bitmaps.remove(successor)
        let wasRecording = successor.state.isRecording
        let since = successor.bits
        bitmap.updateBits { $0.formUnion(since) }
        bitmap.update { state in
            state.isRecording = wasRecording
            state.isBusy = false
            state.successor = nil
        }
    }
}

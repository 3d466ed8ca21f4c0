import ColdframeKit
import QAPI

/// Registers the commands on dirty bitmaps.
@AgentActor
func registerBitmapCommands(_ registry: any CommandRegistry, agent: Agent) {
    let bitmaps = BitmapRegistry(graph: agent.graph)
    registry.register(BlockDirtyBitmapAddCommand.self, touches: { [$0.node] }) { arguments in
        try await bitmaps.add(arguments)
        return QAPIEmpty()
    }
    registry.register(BlockDirtyBitmapRemoveCommand.self, touches: { [$0.node] }) { arguments in
        try await bitmaps.remove(node: arguments.node, name: arguments.name)
        return QAPIEmpty()
    }
    registry.register(BlockDirtyBitmapClearCommand.self, touches: { [$0.node] }) { arguments in
        try bitmaps.clear(node: arguments.node, name: arguments.name)
        return QAPIEmpty()
    }
    registry.register(BlockDirtyBitmapEnableCommand.self, touches: { [$0.node] }) { arguments in
        try bitmaps.setRecording(true, node: arguments.node, name: arguments.name)
        return QAPIEmpty()
    }
    registry.register(BlockDirtyBitmapDisableCommand.self, touches: { [$0.node] }) { arguments in
        try bitmaps.setRecording(false, node: arguments.node, name: arguments.name)
        return QAPIEmpty()
    }
    registry.register(BlockDirtyBitmapMergeCommand.self, touches: { $0.touchedNames }) { arguments in
        try bitmaps.merge(arguments)
        return QAPIEmpty()
    }
    registry.register(XDebugBlockDirtyBitmapSha256Command.self, touches: { [$0.node] }) { arguments in
        let bits = try bitmaps.find(node: arguments.node, name: arguments.name).bitmap.bits
        return BlockDirtyBitmapSha256(sha256: bits.sha256)
    }
}

extension BlockDirtyBitmapMerge {
    var touchedNames: Set<String> {
        Set(
            bitmaps.map { reference in
                switch reference {
                case .local: node
                case .external(let bitmap): bitmap.node
                }
            } + [node])
    }
}

extension DirtyBits {
    /// Of the bits as whole words of 64, as QEMU computes it.
    fileprivate var sha256: String {
        let wordCount = max((storedByteCount + 7) / 8, 1)
        var bytes = [UInt8](repeating: 0, count: wordCount * 8)
        bytes.withUnsafeMutableBytes { store(into: $0, from: 0) }
        return SHA256.hexadecimalDigest(of: bytes)
    }
}

extension DirtyBitmap {
    /// As `query-named-block-nodes` shows it.
    var information: BlockDirtyInfo {
        let state = state
        return BlockDirtyInfo(
            name: state.name, count: Int64(clamping: dirtyByteCount), granularity: granularity,
            recording: state.isRecording || (state.successor?.state.isRecording ?? false), busy: state.isBusy,
            persistent: state.isPersistent, inconsistent: state.isInconsistent ? true : nil)
    }
}

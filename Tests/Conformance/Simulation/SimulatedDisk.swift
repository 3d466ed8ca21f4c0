import ColdframeKit
import ConformanceKit
import LinuxSystem

@testable import AgentCore

/// A user of a node that writes and reads as a guest does, nobody else beside it, and knows what must stand in each block.
@AgentActor
final class SimulatedDisk {
    nonisolated static let blockByteCount = 65536
    let name: String
    let use: NodeUse
    private let block: BlockNode
    /// nil where a write has failed: old or new may stand there.
    private var expected: [UInt8?]

    init?(name: String, on node: GraphNode) {
        self.name = name
        block = BlockNode(node.body)
        use = NodeUse(
            .export(name), role: "root", permissions: [.consistentRead, .write],
            shared: NodePermissions.all.subtracting([.resize, .write]), handle: block)
        expected = Array(repeating: nil, count: Int(node.block.byteCount) / Self.blockByteCount)
        guard !node.block.isReadOnly, (try? node.add(use)) != nil else { return nil }
    }

    var nodeName: String? { use.node?.name }

    func write(_ value: UInt8, to index: Int) async {
        guard index < expected.count else { return }
        let bytes = [UInt8](repeating: value, count: Self.blockByteCount)
        let offset = UInt64(index * Self.blockByteCount)
        let isWritten = await BlockingPool.shared.run { [block] in
            (try? bytes.withUnsafeBytes { try block.write($0, at: offset) }) != nil
        }
        expected[index] = isWritten ? value : nil
    }

    /// What is not as it must be. Blocks that cannot be read are looked at again when nothing fails any more.
    func complaints(mayFail: Bool) async -> [String] {
        var found: [String] = []
        for (index, value) in expected.enumerated() {
            guard let value else { continue }
            let offset = UInt64(index * Self.blockByteCount)
            let bytes = await BlockingPool.shared.run { [block] () -> [UInt8]? in
                var bytes = [UInt8](repeating: 0, count: Self.blockByteCount)
                let isRead = (try? bytes.withUnsafeMutableBytes { try block.read(into: $0, at: offset) }) != nil
                return isRead ? bytes : nil
            }
            guard let bytes else {
                if !mayFail { found.append("block \(index) of \(name) cannot be read") }
                continue
            }
            if bytes != [UInt8](repeating: value, count: bytes.count) {
                found.append("block \(index) of \(name) on '\(nodeName ?? "")' holds \(bytes[0]), not \(value)")
            }
        }
        return found
    }

    func leave() -> GraphNode? {
        let node = use.node
        node?.remove(use)
        return node
    }
}

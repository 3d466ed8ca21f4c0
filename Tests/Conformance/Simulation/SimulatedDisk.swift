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
    /// nil where it is not known: nothing was written yet, or a write has failed and old or new may stand there.
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
    var blocks: Range<Int> { expected.indices }

    /// It is the disk of this node itself, with filters in between at most.
    func stands(on nodeName: String) -> Bool { use.node?.withoutFilters.name == nodeName }

    /// The node is one of those whose content the disk shows.
    func shows(_ nodeName: String) -> Bool { use.node?.chain.contains { $0.name == nodeName } ?? false }

    /// What stands in a block now without a write of the disk; nil for something that is not known.
    func expect(_ value: UInt8?, in index: Int) {
        guard index < expected.count else { return }
        expected[index] = value
    }

    /// Whether it was written.
    func write(_ value: UInt8, to index: Int) async -> Bool {
        guard index < expected.count else { return false }
        let bytes = [UInt8](repeating: value, count: Self.blockByteCount)
        let offset = UInt64(index * Self.blockByteCount)
        let isWritten = await BlockingPool.shared.run { [block] in
            (try? bytes.withUnsafeBytes { try block.write($0, at: offset) }) != nil
        }
        expected[index] = isWritten ? value : nil
        return isWritten
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

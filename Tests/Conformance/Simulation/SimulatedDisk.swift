import ColdframeKit
import ConformanceKit
import LinuxSystem

@testable import AgentCore

/// A user of a node that writes and reads as a guest does, nobody else beside it, and knows what must stand in each block.
///
/// One request is under way at a time. It may wait as long as somebody holds the node still, while commands go on.
@AgentActor
final class SimulatedDisk {
    nonisolated static let blockByteCount = 65536
    let name: String
    let use: NodeUse
    private let block: BlockNode
    /// nil where it is not known: nothing was written yet, or a write has failed and old or new may stand there.
    private var expected: [UInt8?]
    private var work: Task<Void, Never>?
    private var isBusy = false
    private var isWriting = false
    /// The block of the request that is under way; forgotten when it becomes unsure what shows there.
    private var requestIndex: Int?
    private(set) var complaints: [String] = []

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
        guard requestIndex == index else { return }
        // The request may have come before or come after.
        if isWriting { expected[index] = nil }
        requestIndex = nil
    }

    /// Suspends until no request is under way.
    func untilIdle() async { await work?.value }

    /// Suspends until no request is under way, or for so long.
    func untilIdle(milliseconds: Int) async throws -> Bool {
        for _ in 0..<milliseconds where isBusy { try await Task.sleep(for: .milliseconds(1)) }
        return !isBusy
    }

    /// Begins a write of one value to a whole block. False if another request is under way.
    func beginWrite(_ value: UInt8, to index: Int, done: @escaping @AgentActor (Bool) -> Void) -> Bool {
        guard index < expected.count else { return false }
        let bytes = [UInt8](repeating: value, count: Self.blockByteCount)
        let offset = UInt64(index * Self.blockByteCount)
        return begin { [self] in
            // Old or new until it is done.
            expected[index] = nil
            (isWriting, requestIndex) = (true, index)
            let isWritten = await BlockingPool.shared.run { [block] in
                (try? bytes.withUnsafeBytes { try block.write($0, at: offset) }) != nil
            }
            if isWritten, requestIndex == index { expected[index] = value }
            (isWriting, requestIndex) = (false, nil)
            done(isWritten)
        }
    }

    /// Begins to look whether all is as it must be. Blocks that cannot be read are looked at again when nothing fails any more.
    func beginLook(mayFail: Bool) -> Bool {
        begin { [self] in
            for index in expected.indices where expected[index] != nil { await look(at: index, mayFail: mayFail) }
        }
    }

    private func begin(_ body: @escaping @AgentActor () async -> Void) -> Bool {
        guard !isBusy else { return false }
        isBusy = true
        work = Task { @AgentActor in
            await body()
            isBusy = false
        }
        return true
    }

    private func look(at index: Int, mayFail: Bool) async {
        let offset = UInt64(index * Self.blockByteCount)
        let nodeName = nodeName ?? ""
        requestIndex = index
        defer { requestIndex = nil }
        let found = await BlockingPool.shared.run { [block] () -> [UInt8]? in
            var bytes = [UInt8](repeating: 0, count: Self.blockByteCount)
            let isRead = (try? bytes.withUnsafeMutableBytes { try block.read(into: $0, at: offset) }) != nil
            return isRead ? bytes : nil
        }
        guard requestIndex == index, let value = expected[index] else { return }
        guard let found else {
            if !mayFail { complaints.append("block \(index) of \(name) cannot be read") }
            return
        }
        if found != [UInt8](repeating: value, count: found.count) {
            complaints.append("block \(index) of \(name) on '\(nodeName)' holds \(found[0]), not \(value)")
        }
    }

    func leave() -> GraphNode? {
        let node = use.node
        node?.remove(use)
        return node
    }
}

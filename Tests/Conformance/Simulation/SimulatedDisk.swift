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
    /// No image is larger.
    static let blockCountLimit = 24
    let name: String
    let use: NodeUse
    private(set) var complaints: [String] = []
    private let block: BlockNode
    /// nil where it is not known: nothing was written yet, or a write has failed and old or new may stand there.
    private var expected: [UInt8?]
    private var work: Task<Void, Never>?
    private var isBusy = false
    private var isWriting = false
    /// The block of the request that is under way; forgotten when it becomes unsure what shows there.
    private var requestIndex: Int?

    /// - Parameter sharesSize: others may change the size of its node.
    init?(name: String, on node: GraphNode, sharesSize: Bool) {
        self.name = name
        block = BlockNode(node.body)
        use = NodeUse(
            .export(name), role: "root", permissions: [.consistentRead, .write],
            shared: NodePermissions.all.subtracting(sharesSize ? [.write] : [.resize, .write]), handle: block)
        expected = Array(repeating: nil, count: Self.blockCountLimit)
        guard !node.block.isReadOnly, (try? node.add(use)) != nil else { return nil }
    }

    var nodeName: String? { use.node?.name }

    /// What stands in each block as far as it is known.
    var content: [Int: UInt8] {
        Dictionary(uniqueKeysWithValues: expected.indices.compactMap { index in expected[index].map { (index, $0) } })
    }

    /// It is the disk of this node itself, with filters in between at most.
    func stands(on nodeName: String) -> Bool { use.node?.withoutFilters.name == nodeName }

    /// The node is one of those whose content the disk shows.
    func shows(_ nodeName: String) -> Bool { use.node?.shown.contains { $0.name == nodeName } ?? false }

    /// What stands in a block now without a write of the disk; nil for something that is not known.
    func expect(_ value: UInt8?, in index: Int) {
        guard expected.indices.contains(index) else { return }
        expected[index] = value
        guard requestIndex == index else { return }
        // The request may have come before or come after.
        if isWriting { expected[index] = nil }
        requestIndex = nil
    }

    /// Nothing is known any more.
    func forgetAll() {
        for index in expected.indices { expect(nil, in: index) }
    }

    /// The disk may have become shorter: what is behind its end is gone.
    func forgetBehindEnd() {
        for index in expected.indices where index >= Int(block.byteCount) / Self.blockByteCount {
            if expected[index] != nil { expect(nil, in: index) }
        }
    }

    func leave() -> GraphNode? {
        let node = use.node
        node?.remove(use)
        return node
    }

    // MARK: Requests

    /// Suspends until no request is under way.
    func untilIdle() async { await work?.value }

    /// Suspends until no request is under way, or for so long.
    func untilIdle(milliseconds: Int) async throws -> Bool {
        for _ in 0..<milliseconds where isBusy { try await Task.sleep(for: .milliseconds(1)) }
        return !isBusy
    }

    /// Begins a write of one value to a whole block. False if another request is under way.
    func beginWrite(_ value: UInt8, to index: Int, done: @escaping @AgentActor (Bool) -> Void) -> Bool {
        let bytes = [UInt8](repeating: value, count: Self.blockByteCount)
        let offset = UInt64(index * Self.blockByteCount)
        guard !isBusy else { return false }
        // Old or new until it is done, for whoever asks from now on.
        expected[index] = nil
        (isWriting, requestIndex) = (true, index)
        return begin { [self] in
            let isWritten = await BlockingPool.shared.run { [block] in
                (try? bytes.withUnsafeBytes { try block.write($0, at: offset) }) != nil
            }
            if isWritten, requestIndex == index { expected[index] = value }
            (isWriting, requestIndex) = (false, nil)
            done(isWritten)
        }
    }

    /// Begins to look whether all is as it must be. A block that cannot be read is tried again so often.
    func beginLook(tries: Int = 1) -> Bool {
        begin { [self] in
            for index in expected.indices where expected[index] != nil { await look(at: index, tries: tries) }
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

    private func look(at index: Int, tries: Int) async {
        let offset = UInt64(index * Self.blockByteCount)
        let nodeName = nodeName ?? ""
        requestIndex = index
        defer { requestIndex = nil }
        let (found, failure) = await BlockingPool.shared.run { [block] () -> ([UInt8], String?) in
            var bytes = [UInt8](repeating: 0, count: Self.blockByteCount)
            var failure: String?
            for _ in 0..<tries {
                do {
                    try bytes.withUnsafeMutableBytes { buffer in
                        try block.read(into: buffer, at: offset)
                    }
                    return (bytes, nil)
                } catch { failure = "\(error)" }
            }
            return (bytes, failure)
        }
        guard requestIndex == index, let value = expected[index] else { return }
        if let failure {
            if tries > 1 { complaints.append("block \(index) of \(name) on '\(nodeName)' cannot be read: \(failure)") }
            return
        }
        if found != [UInt8](repeating: value, count: found.count) {
            complaints.append("block \(index) of \(name) on '\(nodeName)' holds \(found[0]), not \(value)")
        }
    }

    /// A write to the block has just been made, and nothing was asked of the agent since before it: who records it knows it.
    func checkBitmaps(at index: Int) {
        guard let node = use.node?.withoutFilters else { return }
        let offset = UInt64(index * Self.blockByteCount)
        for bitmap in node.block.bitmaps.all {
            let recording = bitmap.state.successor ?? bitmap
            guard let name = bitmap.name, recording.state.isRecording else { continue }
            if !recording.withBits({ $0.isSet(at: offset) }), !bitmap.withBits({ $0.isSet(at: offset) }) {
                complaints.append("bitmap '\(name)' of '\(node.name)' misses the write to block \(index) of \(name)")
            }
        }
    }
}

import ColdframeKit
import QAPI

/// One `blockdev-create`: finds or opens what the new image goes into, and closes what it opened.
@AgentActor
final class ImageCreation: CreateContext {
    private let graph: Graph
    private let progress: @Sendable @AgentActor (_ byteCount: UInt64) -> Void
    private var opened: [GraphNode] = []
    private var held: [(node: GraphNode, use: NodeUse)] = []

    init(graph: Graph, progress: @escaping @Sendable @AgentActor (_ byteCount: UInt64) -> Void) {
        self.graph = graph
        self.progress = progress
    }

    func run(_ options: BlockdevCreateOptions) async throws {
        let factory = try graph.factory(for: options.driver)
        var failure: (any Error)?
        do { try await factory.create(options, context: self) } catch { failure = error }
        for (node, use) in held { node.remove(use) }
        held = []
        for node in opened.reversed() {
            do { try await graph.close(node) } catch { failure = failure ?? error }
        }
        opened = []
        if let failure { throw failure }
    }

    func target(_ reference: BlockdevRef) async throws -> BlockNode {
        switch reference {
        case .reference(let name):
            let node = try graph.find(deviceOrNode: name)
            guard !node.block.isReadOnly else { throw ColdframeError(.permission, "Block node is read-only") }
            guard node.uses.isEmpty else {
                throw ColdframeError(.busy, "Node '\(name)' is busy: it is in use by \(node.uses[0].user)")
            }
            let use = NodeUse(
                .holder("block job: create"), role: "root", permissions: [.write, .resize], shared: .consistentRead)
            try node.add(use)
            held.append((node, use))
            return node.block
        case .definition(let definition):
            let node = try await graph.open(definition, inherited: InheritedOptions(), isMonitorOwned: false)
            opened.append(node)
            return node.block
        }
    }

    func advance(byteCount: UInt64) { progress(byteCount) }
}

/// The job of `blockdev-create`.
@AgentActor
final class CreateJob: JobDriver {
    let jobType = "create"
    private let options: BlockdevCreateOptions
    private let graph: Graph

    init(_ options: BlockdevCreateOptions, graph: Graph) {
        self.options = options
        self.graph = graph
    }

    func run(_ control: any JobControl) async throws {
        var done: UInt64 = 0
        control.setProgress(current: 0, total: 1)
        try await ImageCreation(graph: graph) { byteCount in
            done += byteCount
            control.setProgress(current: done, total: done + 1)
        }.run(options)
        control.setProgress(current: done + 1, total: done + 1)
    }
}

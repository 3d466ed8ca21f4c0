import ColdframeKit
import QAPI
import QMPWire

/// All block exports: `block-export-add`, `-del`, `query-block-exports`.
@AgentActor
final class ExportRegistry {
    private var exports: [Entry] = []
    private let factories: [String: any BlockExportFactory]
    private let graph: Graph
    private let activity = Activity()
    private let post: @Sendable @AgentActor (String, JSONObject) -> Void

    private final class Entry {
        let options: BlockExportOptions
        let use: NodeUse
        var export: (any BlockExport)?
        var isShuttingDown = false
        var hasEnded = false
        var waiters: [CheckedContinuation<Void, Never>] = []
        init(options: BlockExportOptions, use: NodeUse) {
            self.options = options
            self.use = use
        }
    }

    init(
        factories: [any BlockExportFactory], graph: Graph,
        post: @escaping @Sendable @AgentActor (String, JSONObject) -> Void
    ) {
        self.factories = Dictionary(factories.map { ($0.typeName, $0) }, uniquingKeysWith: { first, _ in first })
        self.graph = graph
        self.post = post
    }

    func add(_ options: BlockExportOptions, services: any AgentServices) async throws {
        guard Identifier.isWellFormed(options.id) else {
            throw ColdframeError(.invalidArgument, "Invalid block export id")
        }
        guard !exports.contains(where: { $0.options.id == options.id }) else {
            throw ColdframeError(.alreadyExists, "Block export id '\(options.id)' is already in use")
        }
        guard let factory = factories[options.type] else {
            throw ColdframeError(.unsupported, "No driver found for the requested export type")
        }
        let node = try graph.find(nodeOnly: options.nodeName)
        let isWritable = options.writable ?? false
        if isWritable, node.block.isReadOnly {
            throw ColdframeError(.permission, "Cannot export read-only node as writable")
        }
        let handle = BlockNode(node.body)
        let use = NodeUse(
            .export(options.id), role: "root", permissions: isWritable ? [.consistentRead, .write] : .consistentRead,
            shared: NodePermissions.all.subtracting(.resize), handle: handle)
        try activity.begin()
        defer { activity.end() }
        try node.add(use)
        let entry = Entry(options: options, use: use)
        exports.append(entry)
        do {
            entry.export = try await factory.start(options, node: handle, services: services) { [weak self] in
                await self?.end(entry)
            }
        } catch {
            forget(entry)
            throw error
        }
        // Ended before it had begun: its server went away meanwhile.
        guard !entry.isShuttingDown else {
            await finish(entry)
            throw ColdframeError(.notFound, "Export '\(options.id)' was ended while it was being added")
        }
    }

    func remove(id: String, mode: BlockExportRemoveMode?) async throws {
        guard let entry = exports.first(where: { $0.options.id == id }) else {
            throw ColdframeError(.notFound, "Export '\(id)' is not found")
        }
        guard !entry.isShuttingDown else {
            throw ColdframeError(.busy, "Export '\(id)' is already shutting down")
        }
        if mode ?? .safe == .safe, entry.export?.hasClients ?? false {
            throw ColdframeError(.busy, "export '\(id)' still in use")
        }
        await end(entry)
    }

    /// The agent's end: refuses new exports, and returns when none serves any more.
    func removeAll() async {
        await activity.close()
        for entry in exports {
            await end(entry)
            while !entry.hasEnded { await withCheckedContinuation { entry.waiters.append($0) } }
        }
    }

    /// Whoever comes second does not wait: it may be the export itself, which says that it is going.
    private func end(_ entry: Entry) async {
        guard !entry.isShuttingDown else { return }
        entry.isShuttingDown = true
        // One that is being started is ended by whoever starts it.
        if entry.export != nil { await finish(entry) }
    }

    private func forget(_ entry: Entry) {
        entry.use.node?.remove(entry.use)
        exports.removeAll { $0 === entry }
        entry.hasEnded = true
        let waiting = entry.waiters
        entry.waiters = []
        for waiter in waiting { waiter.resume() }
    }

    private func finish(_ entry: Entry) async {
        await entry.export?.stop()
        let node = entry.use.node
        forget(entry)
        if let node { await graph.letGo(node) }
        post("BLOCK_EXPORT_DELETED", ["id": .string(entry.options.id)])
    }

    var information: [BlockExportInfo] {
        exports.map { entry in
            BlockExportInfo(
                id: entry.options.id, type: entry.options.type,
                nodeName: entry.use.node?.name ?? entry.options.nodeName,
                shuttingDown: entry.isShuttingDown, uri: entry.export?.uri)
        }
    }

    /// Where clients find a node with the right to write, if it has it.
    func uris(of node: BlockNode) -> [String] {
        exports.filter {
            $0.use.node?.body === node.body && ($0.options.writable ?? false || node.isReadOnly)
        }.compactMap {
            $0.export?.uri
        }
    }
}

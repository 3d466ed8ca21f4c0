import ColdframeKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

/// All nodes of the agent: names, edges, permissions.
@AgentActor
public final class Graph {
    private(set) var nodes: [GraphNode] = []
    private let factories: [String: any BlockDriverFactory]
    private let gate: ImageReferenceGate
    /// Names of nodes whose opening is under way, so that two commands cannot make the same one.
    private var reservedNames: Set<String> = []
    private var automaticNameCount = 0
    /// Nodes that the graph itself had named in an earlier agent are made again.
    var takesAutomaticNames = false
    private let activity = Activity()
    /// nil for an agent that keeps no state.
    let openImages: OpenImages?
    private let post: @Sendable @AgentActor (_ event: String, _ data: JSONObject) -> Void
    /// For what happens on threads of data, as often as a guest likes.
    let limitedEvents: LimitedEvents
    let logger: Logger

    init(
        factories: [any BlockDriverFactory], gate: ImageReferenceGate, openImages: OpenImages? = nil,
        logger: Logger = Logger(label: "graph") { _ in SwiftLogNoOpLogHandler() },
        post: @escaping @Sendable @AgentActor (_ event: String, _ data: JSONObject) -> Void = { _, _ in }
    ) {
        self.post = post
        self.logger = logger
        limitedEvents = LimitedEvents(post: post)
        self.factories = Dictionary(factories.map { ($0.driverName, $0) }, uniquingKeysWith: { first, _ in first })
        self.gate = gate
        self.openImages = openImages
    }

    /// Called when nodes or their users have been put on others, before anybody can write there: an agent that is started
    /// again must find them where the writes went. On a throw they are put back. nil for an agent that keeps no state.
    var record: (@AgentActor (GraphShape) async throws -> Void)?

    /// Nodes that went with their last user, and may be in the agent's record still.
    var goneNames: Set<String> = []

    /// Writes down how the graph stands now. The nodes that have changed are still drained.
    func recordShape() async throws {
        let shape = shape
        try await record?(shape)
        goneNames.subtract(shape.gone)
    }

    /// The objects that nodes may refer to.
    var findObject: @AgentActor (String) -> (any UserObject)? = { _ in nil }

    /// Who reads which snapshot.
    let leases = LeaseTable()
    /// Whether a snapshot is being made or deleted, so that nobody may see it.
    var hidesSnapshot: @AgentActor (SnapshotInfo, GraphNode) -> Bool = { _, _ in false }

    // MARK: Looking up

    func find(nodeName: String) -> GraphNode? {
        nodes.first { $0.name == nodeName && !$0.isPrivate }
    }

    /// For commands whose argument is a device or a node name.
    func find(deviceOrNode name: String) throws -> GraphNode {
        guard let node = find(nodeName: name) else {
            throw ColdframeError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'")
        }
        return node
    }

    /// For commands whose argument is a node name only.
    func find(nodeOnly name: String) throws -> GraphNode {
        guard let node = find(nodeName: name) else {
            throw ColdframeError(.notFound, "Cannot find device='' nor node-name='\(name)'")
        }
        return node
    }

    // MARK: Adding

    /// `blockdev-add`.
    public func add(_ options: BlockdevOptions) async throws {
        guard options.nodeName != nil else {
            throw ColdframeError(.invalidArgument, "'node-name' must be specified for the root node")
        }
        _ = try await open(options, inherited: InheritedOptions(), isMonitorOwned: true)
    }

    /// A node around a driver that a module made.
    func addPrivate(name: String, driver: any BlockDriver) throws -> GraphNode {
        try reserve(name)
        defer { reservedNames.remove(name) }
        let node = GraphNode(
            body: NodeBody(name: name, driver: driver), options: nil, isMonitorOwned: false, isPrivate: true)
        nodes.append(node)
        return node
    }

    /// Opens a node and, through it, its children.
    /// - Parameter isScratch: the image is thrown away after its use, so nothing of it need survive.
    func open(
        _ options: BlockdevOptions, inherited: InheritedOptions, isMonitorOwned: Bool, isScratch: Bool = false
    ) async throws -> GraphNode {
        guard let factory = factories[options.driver] else {
            throw ColdframeError(.unsupported, "Unknown driver '\(options.driver)'")
        }
        try activity.begin()
        defer { activity.end() }
        let name = options.nodeName ?? automaticName()
        try reserve(
            name, isAutomatic: options.nodeName == nil || takesAutomaticNames && name.hasPrefix(Self.automaticPrefix))
        defer { reservedNames.remove(name) }

        let options = inherited.applied(to: options)
        let opening = NodeOpening(graph: self, name: name, options: options, gate: gate)
        do {
            let request = try Self.requestOptions(options, isFilter: factory.isFilter)
            let driver = try await factory.open(options, context: opening)
            let node = GraphNode(
                body: NodeBody(name: name, driver: driver, request: request),
                options: options, isMonitorOwned: isMonitorOwned, isPrivate: false, isFilter: factory.isFilter)
            do {
                try await Self.loadBitmaps(of: node)
                try opening.adopt(as: node)
                for edge in node.children { try await edge.node?.tellOwnership() }
            } catch {
                try? await Self.close(driver)
                throw error
            }
            if !isScratch { await openImages?.opened(node) }
            nodes.append(node)
            return node
        } catch {
            await opening.giveUp()
            throw error
        }
    }

    static func requestOptions(_ options: BlockdevOptions, isFilter: Bool) throws -> NodeBody.RequestOptions {
        if options.detectZeroes == .unmap, options.discard != .unmap {
            throw ColdframeError(
                .invalidArgument,
                "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
        }
        let detection: ZeroDetection =
            switch options.detectZeroes ?? .off {
            case .off: .off
            case .on: .on
            case .unmap: .unmap
            }
        // Other drivers are opened read-only themselves; a filter is as writable as what it shows.
        return NodeBody.RequestOptions(
            ignoresDiscards: options.discard != .unmap, zeroDetection: detection,
            isReadOnly: isFilter && options.readOnly ?? false)
    }

    private func reserve(_ name: String, isAutomatic: Bool = false) throws {
        guard isAutomatic || Identifier.isWellFormed(name) else {
            throw ColdframeError(.invalidArgument, "Invalid node-name: '\(name)'")
        }
        guard name.utf8.count < 32 else { throw ColdframeError(.invalidArgument, "Node name too long") }
        guard !nodes.contains(where: { $0.name == name }), reservedNames.insert(name).inserted else {
            throw ColdframeError(.alreadyExists, "Duplicate nodes with node-name='\(name)'")
        }
    }

    /// Reserves a name, or makes one. `release(name:)` has to follow when the node is there, or will not be.
    func claimName(_ name: String?) throws -> String {
        let name = name ?? automaticName()
        try reserve(name, isAutomatic: name.hasPrefix("#"))
        return name
    }

    func release(name: String) { reservedNames.remove(name) }

    /// Lists a node that was made with a claimed name.
    func adopt(_ node: GraphNode) { nodes.append(node) }

    /// The opposite, for one that has nothing to be closed.
    func forget(_ node: GraphNode) { nodes.removeAll { $0 === node } }

    private func automaticName() -> String {
        while true {
            automaticNameCount += 1
            let digits = String(automaticNameCount)
            let name = Self.automaticPrefix + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
            if !nodes.contains(where: { $0.name == name }), !reservedNames.contains(name) { return name }
        }
    }

    private static let automaticPrefix = "#block"

    // MARK: Removing

    /// `blockdev-del`.
    public func remove(nodeName: String) async throws {
        guard let node = find(nodeName: nodeName) else {
            throw ColdframeError(.notFound, "Failed to find node with node-name='\(nodeName)'")
        }
        for holder in node.uses {
            switch holder.kind {
            case .export, .jobTarget: throw ColdframeError(.busy, "Node \(nodeName) is in use")
            case .opening: throw ColdframeError(.busy, "Block device \(nodeName) is in use")
            case .holder(let words), .disk(_, of: let words):
                throw ColdframeError(.busy, "Node '\(nodeName)' is busy: block device is in use by \(words)")
            case .parent, .job: break
            }
        }
        try node.checkUnblocked(for: .delete)
        guard node.isMonitorOwned else {
            throw ColdframeError(.permission, "Node \(nodeName) is not owned by the monitor")
        }
        guard node.uses.isEmpty else { throw ColdframeError(.busy, "Block device \(nodeName) is in use") }
        try activity.begin()
        defer { activity.end() }
        // A child that was defined inside it, and that another node has come to use, is that one's from now on.
        let isSurvived = node.children.contains { $0.node.map { !$0.isMonitorOwned && $0.uses.count > 1 } ?? false }
        try await close(node)
        // Where that fails a restarted agent may not find the child, and says so.
        if isSurvived { try? await recordShape() }
    }

    func removePrivate(name: String) async throws {
        guard let node = nodes.first(where: { $0.name == name && $0.isPrivate }) else { return }
        try await close(node)
    }

    /// Closes a node that nobody uses, and the children that it alone had.
    func close(_ node: GraphNode) async throws {
        nodes.removeAll { $0 === node }
        var failure: (any Error)?
        // A filter above an image that another node has open does not speak for it.
        let image = node.block.driver is any LeakReclaiming ? node.fileIdentity : nil
        await node.drained {
            do { try await Self.storeBitmaps(of: node) } catch { failure = error }
            do {
                try await Self.close(node.block.driver)
                if let image { await openImages?.closed(image) }
            } catch {
                failure = failure ?? error
            }
        }
        do { try await leaveChildren(of: node) } catch { failure = failure ?? error }
        if let failure { throw failure }
    }

    /// Takes a node that is gone off its children, and closes those that it alone had.
    func leaveChildren(of node: GraphNode) async throws {
        let children = node.children.compactMap { use in use.node.map { (use, $0) } }
        node.children = []
        for (use, child) in children {
            child.remove(use)
            for parent in child.parents { parent.hasChanged = true }
        }
        var failure: (any Error)?
        for (_, child) in children {
            do { try await child.tellOwnership() } catch { failure = failure ?? error }
        }
        for (_, child) in children where !child.isMonitorOwned && child.uses.isEmpty {
            // The same child may stand at two edges.
            guard nodes.contains(where: { $0 === child }) else { continue }
            do { try await close(child) } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
    }

    static func close(_ driver: any BlockDriver) async throws {
        try await BlockingPool.shared.run { () throws(ColdframeError) in try driver.close() }
    }

    /// Refuses new nodes and closes all, parents before children (the agent's end). Reports what could not be flushed.
    func closeAll() async -> [ColdframeError] {
        await activity.close()
        var failures: [ColdframeError] = []
        while let node = nodes.first(where: { $0.parents.isEmpty }) {
            do { try await close(node) } catch { failures.append(ColdframeError(wrapping: error)) }
        }
        return failures
    }

    func reportCorruption(of nodeName: String, _ corruption: ImageCorruption) {
        var data: JSONObject = ["device": "", "node-name": .string(nodeName), "msg": .string(corruption.message)]
        if let offset = corruption.offset { data["offset"] = .integer(Int64(clamping: offset)) }
        if let byteCount = corruption.byteCount { data["size"] = .integer(Int64(clamping: byteCount)) }
        data["fatal"] = .bool(corruption.isFatal)
        post("BLOCK_IMAGE_CORRUPTED", data)
    }

    // MARK: Images that are no nodes

    func factory(for driver: String) throws -> any BlockDriverFactory {
        guard let factory = factories[driver] else {
            throw ColdframeError(.unsupported, "Unknown driver '\(driver)'")
        }
        return factory
    }
}

import ColdframeKit

/// The union of all nodes' snapshots, by tag.
///
/// Sets that are being made or deleted are left out: to whoever looks, a tag is whole or not there.
@AgentActor
final class Catalogue {
    private let graph: Graph
    private var leases: LeaseTable { graph.leases }
    /// By UUID: what these make or remove is not to be seen.
    private var hiddenIntents: [String: Intent] = [:]
    private var observers: [UInt64: @Sendable @AgentActor ([SnapshotSet]) -> Void] = [:]
    private var observerCount: UInt64 = 0

    init(graph: Graph) {
        self.graph = graph
        graph.hidesSnapshot = { [weak self] snapshot, node in self?.isHidden(snapshot, on: node) ?? false }
    }

    // MARK: Looking

    /// Nodes whose snapshots are listed: those that a user can name, with internal snapshots.
    var bearers: [(node: GraphNode, bearer: any SnapshotBearing)] {
        graph.nodes.compactMap { node in
            guard node.isListed, let bearer = node.block.driver as? any SnapshotBearing else { return nil }
            return (node, bearer)
        }
    }

    /// All tags, oldest first.
    var sets: [SnapshotSet] {
        var members: [String: [SnapshotSet.Member]] = [:]
        for (node, bearer) in bearers {
            for snapshot in bearer.snapshots where !isHidden(snapshot, on: node) {
                members[snapshot.name, default: []].append(.init(nodeName: node.name, snapshot: snapshot))
            }
        }
        return members.map { tag, members in makeSet(tag, members) }.sorted { a, b in
            let (x, y) = (a.dateKey, b.dateKey)
            return x != y ? x < y : a.tag < b.tag
        }
    }

    func set(tagged tag: String) -> SnapshotSet? {
        sets.first { $0.tag == tag }
    }

    private func isHidden(_ snapshot: SnapshotInfo, on node: GraphNode) -> Bool {
        hiddenIntents.values.contains { $0.hides(snapshot, on: node) }
    }

    private func makeSet(_ tag: String, _ members: [SnapshotSet.Member]) -> SnapshotSet {
        let records = members.map { SetRecord($0.snapshot.annotation) }
        let uuids = Set(records.map { $0?.uuidText ?? "" })
        // One stranger's snapshot is a set of its own; several under one name belong together only if a UUID says so.
        let isMixed = uuids.count > 1 || (uuids.contains("") && members.count > 1)
        var isComplete = !isMixed
        if !isMixed, let record = records.first ?? nil {
            isComplete = members.count == Int(record.memberCount) && Set(members.map(\.nodeName)).count == members.count
            if record.hasState { isComplete = isComplete && records.contains { $0?.state != nil } }
        }
        let holders = members.flatMap { leases.holders(node: $0.nodeName, snapshotID: $0.snapshot.id) }
        return SnapshotSet(
            tag: tag, uuid: isMixed ? nil : (records.first ?? nil)?.uuidText, isMixed: isMixed, isComplete: isComplete,
            members: members, holders: Set(holders).sorted())
    }

    // MARK: Hiding

    /// Until `show`, what the intent makes or removes is left out.
    func hide(_ intent: Intent) { hiddenIntents[intent.uuid] = intent }
    func show(_ intent: Intent) { hiddenIntents[intent.uuid] = nil }

    // MARK: Watching

    /// To be called after whatever may have changed the sets.
    func changed() {
        let sets = sets
        for observer in observers.values { observer(sets) }
    }

    func observe(_ observer: @escaping @Sendable @AgentActor ([SnapshotSet]) -> Void) -> any ObservationToken {
        observerCount += 1
        observers[observerCount] = observer
        observer(sets)
        return Observation(catalogue: self, key: observerCount)
    }

    private final class Observation: ObservationToken {
        private let catalogue: Catalogue
        private let key: UInt64
        init(catalogue: Catalogue, key: UInt64) {
            self.catalogue = catalogue
            self.key = key
        }
        func cancel() { catalogue.observers[key] = nil }
    }
}

extension SnapshotSet {
    /// When it was made, for ordering.
    fileprivate var dateKey: UInt64 {
        members.map { UInt64($0.snapshot.dateSeconds) << 32 | UInt64($0.snapshot.dateNanoseconds) }.min() ?? 0
    }
}

import ColdframeKit
import LinuxSystem
import Synchronization

/// A snapshot of a node.
struct SnapshotKey: Hashable, Sendable {
    let node: String
    let id: String
}

/// Who reads which snapshot. While a lease lasts, delete refuses and names its holder.
final class LeaseTable: Sendable {
    private let state = Locked(State())
    private let nextKey = Atomic<UInt64>(0)

    private struct State {
        var leases: [UInt64: Entry] = [:]
        /// Snapshots that are being deleted, which nobody may open any more.
        var leaving: Set<SnapshotKey> = []
    }

    private struct Entry {
        let node: String
        let snapshotID: String
        let holder: String
    }

    private func add(_ entry: Entry) throws(ColdframeError) -> UInt64 {
        let key = nextKey.add(1, ordering: .relaxed).newValue
        let isThere = state.withLock { state in
            guard !state.leaving.contains(SnapshotKey(node: entry.node, id: entry.snapshotID)) else { return false }
            state.leases[key] = entry
            return true
        }
        guard isThere else {
            throw ColdframeError(.notFound, "A snapshot of node '\(entry.node)' is being deleted")
        }
        return key
    }

    /// From here on nobody can open these snapshots. Throws, naming the holders, if somebody has one open already.
    /// `endDelete` has to follow.
    func beginDelete(_ keys: [SnapshotKey], tag: String) throws(ColdframeError) {
        let holders: Set<String> = state.withLock { state in
            let holders = state.leases.values.filter { keys.contains(SnapshotKey(node: $0.node, id: $0.snapshotID)) }
            if holders.isEmpty { state.leaving.formUnion(keys) }
            return Set(holders.map(\.holder))
        }
        guard holders.isEmpty else {
            throw ColdframeError(
                .busy, "Snapshot '\(tag)' is open in \(holders.sorted().joined(separator: ", ")): close it there first")
        }
    }

    func endDelete(_ keys: [SnapshotKey]) {
        state.withLock { $0.leaving.subtract(keys) }
    }

    fileprivate func remove(_ key: UInt64) {
        state.withLock { _ = $0.leases.removeValue(forKey: key) }
    }

    /// Holders of a node's snapshot, in words for people, each once.
    func holders(node: String, snapshotID: String) -> [String] {
        let holders = state.withLock { state in
            state.leases.values.filter { $0.node == node && $0.snapshotID == snapshotID }.map(\.holder)
        }
        return Set(holders).sorted()
    }

    /// Holders of any snapshot of a node.
    func holders(node: String) -> [String] {
        Set(state.withLock { $0.leases.values.filter { $0.node == node }.map(\.holder) }).sorted()
    }

    /// Opens a snapshot and records the lease before it does, so that nothing can delete it in between.
    @AgentActor
    func open(node: GraphNode, snapshotID: String, holder: String) async throws -> any SnapshotLease {
        guard let bearer = node.block.driver as? any SnapshotBearing,
            let snapshot = bearer.snapshots.first(where: { $0.id == snapshotID })
        else {
            throw ColdframeError(
                .notFound, "Snapshot with id '\(snapshotID)' does not exist on device '\(node.name)'")
        }
        let key = try add(Entry(node: node.name, snapshotID: snapshotID, holder: holder))
        do {
            let opened = try await BlockingPool.shared.run { () throws(ColdframeError) in
                let disk = try bearer.openSnapshot(id: snapshotID)
                let state =
                    snapshot.vmStateByteCount > 0
                    ? try (bearer as? any VMStateBearing)?.openVMState(ofSnapshot: snapshotID) : nil
                return OpenedSnapshot(disk: disk, vmState: state)
            }
            return Lease(table: self, key: key, opened: opened)
        } catch {
            remove(key)
            throw error
        }
    }
}

private struct OpenedSnapshot: Sendable {
    let disk: any BlockDriver
    let vmState: (any VMStateReader)?
}

private final class Lease: SnapshotLease {
    let disk: any BlockDriver
    let vmState: (any VMStateReader)?
    private let table: LeaseTable
    private let key: UInt64
    private let released = Atomic<Bool>(false)

    init(table: LeaseTable, key: UInt64, opened: OpenedSnapshot) {
        self.table = table
        self.key = key
        disk = opened.disk
        vmState = opened.vmState
    }

    func release() {
        guard !released.exchange(true, ordering: .acquiringAndReleasing) else { return }
        // What a read-only view holds is memory: there is nothing to lose in closing it.
        try? disk.close()
        table.remove(key)
    }

    deinit { release() }
}

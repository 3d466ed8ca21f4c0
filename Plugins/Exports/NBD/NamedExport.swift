import ColdframeKit
import LinuxSystem

/// A node under a name on one server, and the connections that use it.
final class NamedExport: Sendable {
    let name: String
    let description: String?
    let node: BlockNode
    let isWritable: Bool
    /// What every write carries, besides what its client asks for.
    let writeFlags: WriteFlags
    let flags: WireTransmissionFlags
    /// The request size that the image likes best, a power of two.
    let preferredByteCount: UInt32
    /// Bitmaps that clients may ask for.
    let bitmaps: [ExportedBitmap]

    private struct State {
        var isStopping = false
        var connections: [Connection] = []
        var waiters: [CheckedContinuation<Void, Never>] = []
    }
    private let state = Locked(State())

    /// - Parameters:
    ///   - clusterByteCount: the image's cluster size if it has one.
    ///   - canMultiConnect: false only where the server admits a single connection. All connections of an export share
    ///     one node and one page cache, so that a flush on one covers what was written on the others.
    init(
        name: String, description: String? = nil, node: BlockNode, isWritable: Bool,
        isWritethrough: Bool = false, clusterByteCount: UInt32?, canMultiConnect: Bool = true,
        bitmaps: [ExportedBitmap] = []
    ) {
        self.bitmaps = bitmaps
        self.name = name
        self.description = description
        self.node = node
        self.isWritable = isWritable
        writeFlags = isWritethrough ? .forceUnitAccess : []
        var flags: WireTransmissionFlags = [.hasFlags, .sendFlush, .sendFUA, .sendCache]
        if canMultiConnect { flags.insert(.canMultiConnect) }
        flags.formUnion(isWritable ? [.sendTrim, .sendWriteZeroes, .sendFastZero] : .readOnly)
        self.flags = flags
        let cluster = clusterByteCount ?? 0
        preferredByteCount =
            cluster.nonzeroBitCount == 1 ? min(max(cluster, 4096), UInt32(WireLimit.payloadByteCount)) : 4096
    }

    var hasConnections: Bool { state.withLock { !$0.connections.isEmpty } }

    /// False if the export is being removed: the connection must not use it.
    func attach(_ connection: Connection) -> Bool {
        state.withLock { state in
            guard !state.isStopping else { return false }
            state.connections.append(connection)
            return true
        }
    }

    func detach(_ connection: Connection) {
        let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            state.connections.removeAll { $0 === connection }
            guard state.connections.isEmpty else { return [] }
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Disconnects the clients and suspends until no request of theirs is in flight. Idempotent.
    func stop() async {
        let connections = state.withLock { state in
            state.isStopping = true
            return state.connections
        }
        for connection in connections { connection.shutdown() }
        await withCheckedContinuation { continuation in
            let isDone = state.withLock { state in
                if state.connections.isEmpty { return true }
                state.waiters.append(continuation)
                return false
            }
            if isDone { continuation.resume() }
        }
    }
}

/// The exports of one server by name. Any thread.
final class ExportTable: Sendable {
    private let exports = Locked<[NamedExport]>([])

    func find(_ name: String) -> NamedExport? {
        exports.withLock { $0.first { $0.name == name } }
    }

    /// In the order in which they were added.
    var all: [NamedExport] { exports.withLock { $0 } }

    /// False if the name is taken.
    func insert(_ export: NamedExport) -> Bool {
        exports.withLock { exports in
            guard !exports.contains(where: { $0.name == export.name }) else { return false }
            exports.append(export)
            return true
        }
    }

    func remove(_ export: NamedExport) {
        exports.withLock { $0.removeAll { $0 === export } }
    }
}

import ColdframeKit
import QAPI

/// What a guest has of the agent: the private server with its disks and the barrier, and the claims on the nodes.
@AgentActor
final class GuestResources {
    let disks: [QEMUCommandLine.Disk]
    /// By disk: where an attached guest finds it.
    let exportURIs: [String: [String]]
    private var server: (any DiskServer)?
    /// One for each disk, in the guest's order.
    private var claims: [any NodeClaim] = []
    /// What was served, when nothing is any more.
    private var lastDisks: [GuestDisk]
    /// Of the disks that the guest writes to, in its order.
    private var writableClaims: [any NodeClaim] = []
    private let services: any AgentServices
    private var hasBarrierNode = false
    /// Of the agent's node; QEMU's has the same name in every process.
    private let barrierName: String

    /// Serves the disks and the barrier; on a throw nothing is left.
    /// - Parameter isParked: the disks belong to another process of the guest: they look writable, and writes are refused
    ///   until they are passed on.
    init(
        _ request: GuestRequest, barrier: BarrierDriver, isParked: Bool = false, services: any AgentServices
    ) async throws {
        self.services = services
        barrierName = QEMUCommandLine.barrierNodeName + (request.slot == 0 ? "" : "-\(request.slot)")
        lastDisks = request.disks
        let nodes = try request.disks.map { (name: $0.name, node: try services.node(named: $0.nodeName)) }
        exportURIs = Dictionary(
            nodes.map { ($0.name, services.exportURIs(of: $0.node)) }, uniquingKeysWith: { first, _ in first })
        disks = nodes.map { .init(name: $0.name, isReadOnly: $0.node.isReadOnly) }
        do {
            for (name, node) in nodes {
                // The disks of an attached guest are exports, which say themselves that they write.
                let writes = !node.isReadOnly && !request.isAttached
                let claim = try services.claim(
                    node, asDisk: name, of: "guest '\(request.id)'", isWriter: writes && !isParked)
                claims.append(claim)
                if writes { writableClaims.append(claim) }
            }
            let server = try await services.startDiskServer(socketPath: request.diskServerPath)
            self.server = server
            let barrierNode = try services.addPrivateNode(name: barrierName, driver: barrier)
            hasBarrierNode = true
            try await server.add(
                barrierNode, exportName: QEMUCommandLine.barrierNodeName, isWritable: true, ownWorkers: true)
            for (name, node) in request.isAttached ? [] : nodes {
                try await server.add(node, exportName: name, isWritable: !node.isReadOnly, ownWorkers: false)
            }
        } catch {
            await release()
            throw error
        }
    }

    /// The disks with the nodes that serve them now.
    var servedDisks: [GuestDisk] {
        guard claims.count == disks.count else { return lastDisks }
        return zip(disks, claims).map { GuestDisk(name: $0.name, nodeName: $1.nodeName) }
    }

    /// Gives everything back. Idempotent.
    func release() async {
        lastDisks = servedDisks
        await server?.stop()
        server = nil
        if hasBarrierNode {
            // The node is the agent's own and holds nothing that could be lost.
            try? await services.removePrivateNode(name: barrierName)
            hasBarrierNode = false
        }
        for claim in claims { claim.release() }
        claims = []
        writableClaims = []
    }

    /// Passes the right to write to another process of the guest. The disks' gates are closed. On a throw nothing has
    /// changed.
    func passDisks(to other: GuestResources) throws {
        var passed = 0
        do {
            for (mine, its) in zip(writableClaims, other.writableClaims) {
                passed += 1
                try mine.setWriter(false)
                try its.setWriter(true)
            }
        } catch {
            for (mine, its) in zip(writableClaims, other.writableClaims).prefix(passed) {
                // Back to what was there a moment ago, at which nobody can be in the way.
                try? its.setWriter(false)
                try? mine.setWriter(true)
            }
            throw error
        }
    }
}

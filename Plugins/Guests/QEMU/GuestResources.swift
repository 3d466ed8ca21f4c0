import ColdframeKit

/// What a guest has of the agent: the private server with its disks and the barrier, and the claims on the nodes.
@AgentActor
final class GuestResources {
    let diskNodeNames: [String]
    let disks: [QEMUCommandLine.Disk]
    /// By node: where an attached guest finds it.
    let exportURIs: [String: [String]]
    private var server: (any DiskServer)?
    private var claims: [any NodeClaim] = []
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
        diskNodeNames = request.disks
        let nodes = try diskNodeNames.map { try services.node(named: $0) }
        exportURIs = Dictionary(
            nodes.map { ($0.name, services.exportURIs(of: $0)) }, uniquingKeysWith: { first, _ in first })
        disks = nodes.map { .init(nodeName: $0.name, isReadOnly: $0.isReadOnly) }
        do {
            for node in nodes {
                // The disks of an attached guest are exports, which say themselves that they write.
                let writes = !node.isReadOnly && !request.isAttached
                let claim = try services.claim(
                    node, holder: "guest '\(request.id)'", isWriter: writes && !isParked)
                claims.append(claim)
                if writes { writableClaims.append(claim) }
            }
            let server = try await services.startDiskServer(socketPath: request.diskServerPath)
            self.server = server
            let barrierNode = try services.addPrivateNode(name: barrierName, driver: barrier)
            hasBarrierNode = true
            try await server.add(
                barrierNode, exportName: QEMUCommandLine.barrierNodeName, isWritable: true, ownWorkers: true)
            for node in request.isAttached ? [] : nodes {
                try await server.add(node, exportName: node.name, isWritable: !node.isReadOnly, ownWorkers: false)
            }
        } catch {
            await release()
            throw error
        }
    }

    /// Gives everything back. Idempotent.
    func release() async {
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

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
    private let services: any AgentServices
    private var hasBarrierNode = false

    /// Serves the disks and the barrier; on a throw nothing is left.
    init(_ request: GuestRequest, barrier: BarrierDriver, services: any AgentServices) async throws {
        self.services = services
        diskNodeNames = request.disks
        let nodes = try diskNodeNames.map { try services.node(named: $0) }
        exportURIs = Dictionary(
            nodes.map { ($0.name, services.exportURIs(of: $0)) }, uniquingKeysWith: { first, _ in first })
        disks = nodes.map { .init(nodeName: $0.name, isReadOnly: $0.isReadOnly) }
        do {
            for node in nodes {
                // The disks of an attached guest are exports, which say themselves that they write.
                claims.append(
                    try services.claim(
                        node, holder: "guest '\(request.id)'", isWriter: !node.isReadOnly && !request.isAttached))
            }
            let server = try await services.startDiskServer(socketPath: request.diskServerPath)
            self.server = server
            let barrierNode = try services.addPrivateNode(name: QEMUCommandLine.barrierNodeName, driver: barrier)
            hasBarrierNode = true
            try await server.add(
                barrierNode, exportName: barrierNode.name, isWritable: true, ownWorkers: true)
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
            try? await services.removePrivateNode(name: QEMUCommandLine.barrierNodeName)
            hasBarrierNode = false
        }
        for claim in claims { claim.release() }
        claims = []
    }
}

import ColdframeKit
import QAPI

/// The job of `x-blockdev-amend`. No driver of the agent has an option that an open image could change: what can be asked for
/// is that nothing be changed, which goes well, as in QEMU.
@AgentActor
final class AmendJob: JobDriver {
    let jobType = "amend"
    private let node: GraphNode
    private let use = NodeUse(.holder("block job: amend"), role: "root", permissions: [], shared: .all)

    init(_ arguments: XBlockdevAmendArguments, graph: Graph) throws {
        node = try graph.find(nodeOnly: arguments.nodeName)
        guard node.block.driver.driverName == arguments.options.driver else {
            throw ColdframeError(
                .invalidArgument, "x-blockdev-amend doesn't support changing the block driver")
        }
        try node.add(use)
    }

    func run(_ control: any JobControl) async throws {
        try await control.checkpoint()
        control.setProgress(current: 1, total: 1)
    }

    func clean() async { node.remove(use) }
}

/// Registers `x-blockdev-amend`.
@AgentActor
func registerAmendCommand(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(XBlockdevAmendCommand.self, touches: { [$0.nodeName] }) { arguments in
        let driver = try AmendJob(arguments, graph: agent.graph)
        do { try agent.jobs.start(id: arguments.jobId, driver: driver) } catch {
            await driver.clean()
            throw error
        }
        return QAPIEmpty()
    }
}

import ColdframeKit
import QAPI

extension Graph {
    /// Gives a node's image other options: its driver is closed, the image changed, and a new driver opened under all
    /// users. Nobody is inside meanwhile. On a throw each option has its old value or its new one.
    func amend(
        _ node: GraphNode, _ options: BlockdevAmendOptions, progress: @escaping AmendProgress
    ) async throws {
        guard let format = try factory(for: options.driver) as? any ImageAmending else {
            throw ColdframeError(.unsupported, "Driver does not support x-blockdev-amend")
        }
        guard !node.block.isReadOnly, let current = node.currentOptions else {
            throw ColdframeError(.permission, "Node '\(node.name)' is read-only")
        }
        func handle(_ role: String) -> BlockNode? { node.children.first { $0.role == role }?.handle }
        guard let file = handle("file") else {
            throw ColdframeError(.unsupported, "Node '\(node.name)' has no file of its own")
        }
        let image = AmendedImage(file: file, backing: handle("backing"), dataFile: handle("data-file"))
        try await node.drained {
            var change = Reopening.Change(node: node, options: current, backing: nil)
            change.between = { () throws(ColdframeError) in
                try format.amend(image, options, progress: progress)
            }
            try await Reopening(graph: self).run([change])
        }
    }
}

/// The job of `x-blockdev-amend`.
@AgentActor
final class AmendJob: JobDriver {
    let jobType = "amend"
    private let node: GraphNode
    private let options: BlockdevAmendOptions
    private let agent: Agent
    private let use: NodeUse

    init(_ arguments: XBlockdevAmendArguments, agent: Agent) throws {
        self.agent = agent
        options = arguments.options
        node = try agent.graph.find(nodeOnly: arguments.nodeName)
        guard node.block.driver.driverName == arguments.options.driver else {
            throw ColdframeError(
                .invalidArgument, "x-blockdev-amend doesn't support changing the block driver")
        }
        use = NodeUse(
            .holder("block job: amend"), role: "root", permissions: options.json["size"] == nil ? [] : .resize,
            shared: .all)
        try node.add(use)
    }

    func run(_ control: any JobControl) async throws {
        try await control.checkpoint()
        // At its end, whichever that is, as in QEMU.
        defer { control.setProgress(current: 1, total: 1) }
        // That nothing be changed goes well with any image, as in QEMU.
        if options.json.objectValue?.count ?? 0 > 1 {
            // Nobody gets to the disk meanwhile, nor to the lane: a pause would hold both.
            control.setPausable(false)
            defer {
                control.setPausable(true)
                agent.catalogue.changed()
            }
            // Not while snapshots are made or deleted.
            try await agent.lane.run(for: control) {
                try await agent.graph.amend(node, options) { (done, total) throws(ColdframeError) in
                    if control.isCancelled { throw ColdframeError(.cancelled, "Operation canceled") }
                    control.setProgress(current: done, total: max(total, 1))
                }
            }
        }
    }

    func clean() async { await agent.graph.end(use) }
}

/// Registers `x-blockdev-amend`.
@AgentActor
func registerAmendCommand(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(XBlockdevAmendCommand.self, touches: { [$0.nodeName] }) { arguments in
        let driver = try AmendJob(arguments, agent: agent)
        do { try agent.jobs.start(id: arguments.jobId, driver: driver) } catch {
            await driver.clean()
            throw error
        }
        return QAPIEmpty()
    }
}

import ColdframeKit
import ConformanceKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

@testable import AgentCore
@testable import coldframed

/// One random sequence of commands on a graph of up to six images, with writers, and requests that fail now and then. What
/// is asked is in `JobSimulation+Commands`.
@AgentActor
final class JobSimulation {
    static let imageLimit = 6
    private static let byteCount = 1 << 20
    private static let patienceNanoseconds: UInt64 = 300_000_000_000

    let agent: Agent
    let dice: FaultDice
    let clock = SimulatedClock()
    var chance: SplitMix
    var images: [String] = []
    var disks: [SimulatedDisk] = []
    var jobCount = 0
    private let tools: ToolFolder
    private let folder: String
    private let emptyImage: [UInt8]
    private var imageCount = 0
    /// Says each command before it runs, for one that ends the process.
    private let isTraced = ProcessControl.environment("COLDFRAME_SIMULATION_TRACE") != nil
    var log: [String] = []
    private(set) var complaints: [String] = []

    init(seed: UInt64) throws {
        BranchTable.install(Modules.all.map(\.schema) + [FlakyBranch.fragment])
        chance = SplitMix(state: seed)
        dice = FaultDice(seed: seed)
        tools = try ToolFolder()
        folder = try Files.canonicalPath(tools.directory)
        try tools.require("qemu-img", "create", "-q", "-f", "qcow2", tools.path("empty"), String(Self.byteCount))
        emptyImage = try Files.readAll(tools.path("empty"), limit: 1 << 20)
        let flaky = Module(name: "flaky", schema: FlakyBranch.fragment, blockDrivers: [FlakyFactory(dice: dice)])
        var configuration = Agent.Configuration(
            name: nil, allowedBackingFolders: [folder],
            logger: Logger(label: "simulation") { _ in SwiftLogNoOpLogHandler() })
        configuration.jobClock = clock
        agent = try Agent(configuration, modules: Modules.all + [flaky])
    }

    func run(commandCount: Int) async throws {
        for _ in 0..<3 { try await addImage() }
        for _ in 0..<commandCount where complaints.isEmpty {
            try await step()
            // Half of the time nothing fails.
            if chance.next(below: 8) == 0 { dice.setRate(oneIn: [0, 0, 40, 200][chance.next(below: 4)]) }
        }
        try await end()
    }

    // MARK: Commands

    /// Whether it succeeded.
    @discardableResult
    func execute(_ command: String, _ arguments: JSONObject) async -> Bool {
        if isTraced { print("\(command) \(arguments)") }
        let outcome = await withinPatience("\(command) \(arguments)") { [agent] in
            do {
                _ = try await agent.commands.execute(command, arguments)
                return "ok"
            } catch { return "\(error)" }
        }
        log.append("\(command) \(arguments): \(outcome)")
        return outcome == "ok"
    }

    private func withinPatience(_ what: String, _ body: @escaping @AgentActor () async -> String) async -> String {
        let task = Task { @AgentActor in await body() }
        let alarm = Task { @AgentActor in
            try await Task.sleep(nanoseconds: Self.patienceNanoseconds)
            print("simulation hangs in \(what)\n" + log.joined(separator: "\n"))
            preconditionFailure("a command hangs")
        }
        defer { alarm.cancel() }
        return await task.value
    }

    func path(of image: String) -> String { "\(folder)/\(image)" }

    func addImage() async throws {
        guard images.count < Self.imageLimit else { return }
        imageCount += 1
        let name = "n\(imageCount)"
        try tools.write(emptyImage, to: name)
        var backing = JSONValue.null
        if !images.isEmpty, chance.next(below: 2) == 0 { backing = .string(image()) }
        images.append(name)
        await execute(
            "blockdev-add",
            [
                "driver": "qcow2", "node-name": .string(name), "discard": "unmap", "backing": backing,
                "file": ["driver": "flaky", "file": ["driver": "file", "filename": .string(path(of: name))]],
            ])
    }

    /// What a node's own image holds, where it may become an overlay; nil otherwise.
    func layer(of name: String) async throws -> ImageLayer? {
        guard let node = node(name), node.uses.isEmpty, node.backing == nil else { return nil }
        let path = path(of: name)
        return try await BlockingPool.shared.run { [tools] in try ImageLayer(path: path, tools: tools) }
    }

    func image() -> String { images[chance.next(below: images.count)] }

    func node(_ name: String) -> GraphNode? { agent.graph.find(nodeName: name) }

    // MARK: Looking

    func look(mayFail: Bool) async {
        for disk in disks {
            let found = await disk.complaints(mayFail: mayFail)
            complaints += found
        }
    }

    /// Everything comes to an end, and nothing is left.
    private func end() async throws {
        dice.setRate(oneIn: 0)
        await look(mayFail: false)
        _ = await withinPatience("the end of all jobs") { [agent] in
            await agent.jobs.cancelAll()
            return ""
        }
        await look(mayFail: false)
        for disk in disks {
            if let node = disk.leave() { await agent.graph.letGo(node) }
        }
        for node in agent.graph.nodes {
            if node.options == nil { complaints.append("'\(node.name)', the filter of a job, is left") }
            if !node.drains.isEmpty || node.block.gate.isClosed { complaints.append("'\(node.name)' is still drained") }
            for use in node.uses where use.parent == nil { complaints.append("'\(node.name)' is held by \(use.user)") }
        }
        for failure in await agent.graph.closeAll() { complaints.append("closing: \(failure)") }
        if !agent.graph.nodes.isEmpty { complaints.append("nodes are left: \(agent.graph.nodes.map(\.name))") }
        for number in 1...max(1, imageCount) { try await check(path(of: "n\(number)")) }
    }

    /// Clusters may be leaked where a request has failed; damage there must not be, nor a lock, which qemu-img would meet.
    private func check(_ path: String) async throws {
        let (status, output) = try await BlockingPool.shared.run { [tools] in
            try tools.run("qemu-img", ["check", "-q", "-f", "qcow2", path])
        }
        if status != 0, status != 3 { complaints.append("qemu-img check \(path) ended with \(status): \(output)") }
    }
}

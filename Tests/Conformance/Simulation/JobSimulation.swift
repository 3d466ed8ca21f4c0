import ColdframeKit
import ConformanceKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

@testable import AgentCore
@testable import coldframed

/// One random sequence of commands on a graph of up to six images, with writers, and requests that fail now and then. What
/// is asked is in `JobSimulation+Commands`. It comes to the agent as any client's does, by a monitor, whose events and answers
/// are held against QEMU's tables.
@AgentActor
final class JobSimulation {
    static let imageLimit = 6
    private static let byteCount = 1 << 20
    private static let patienceNanoseconds: UInt64 = 300_000_000_000

    let agent: Agent
    let dice: FaultDice
    let clock = SimulatedClock()
    private let seed: UInt64
    var chance: SplitMix
    var images: [String] = []
    var disks: [SimulatedDisk] = []
    var jobCount = 0
    var watch = JobWatch()
    private let client: MonitorClient
    private let tools: ToolFolder
    private let folder: String
    private let emptyImage: [UInt8]
    private var imageCount = 0
    /// Says each command before it runs, for one that ends the process.
    private let isTraced = ProcessControl.environment("COLDFRAME_SIMULATION_TRACE") != nil
    private(set) var log: [String] = []
    private var ownComplaints: [String] = []

    var complaints: [String] { ownComplaints + watch.complaints + disks.flatMap(\.complaints) }

    func note(_ words: String) {
        if isTraced { print(words) }
        log.append(words)
    }

    init(seed: UInt64) throws {
        BranchTable.install(Modules.all.map(\.schema) + [FlakyBranch.fragment])
        self.seed = seed
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
        try agent.monitors.add(id: "simulation", chardev: .unixServer(path: tools.path("qmp")))
        client = try MonitorClient(path: tools.path("qmp"))
    }

    func run(commandCount: Int) async throws {
        try await client.negotiate()
        for _ in 0..<3 { try await addImage() }
        for number in 0..<commandCount where complaints.isEmpty {
            // Each has chances of its own: they are the same again if one before it has ended otherwise.
            chance = SplitMix(state: seed &+ UInt64(number) << 32)
            try await step()
            // Half of the time nothing fails.
            if chance.next(below: 8) == 0 { dice.setRate(oneIn: [0, 0, 40, 200][chance.next(below: 4)]) }
        }
        try await end()
    }

    // MARK: Commands

    /// Whether it succeeded.
    /// - Parameter asked: the jobs that it starts.
    @discardableResult
    func execute(_ command: String, _ arguments: JSONObject, starting asked: [AskedJob] = []) async throws -> Bool {
        if isTraced { print("\(command) \(arguments) …") }
        let verb = AskedVerb(command, arguments)
        let before = verb.flatMap { watch.histories[$0.id] }
        if let verb { watch.begin(verb) } else { watch.begin(starting: asked) }
        let result = try await call(command, arguments)
        var refusal: QMPError?
        if case .failure(let error) = result { refusal = error }
        note("\(command) \(arguments): \(refusal.map { "\($0)" } ?? "ok")")
        if let verb {
            watch.end(verb, refusal: refusal, before: before)
        } else {
            watch.end(starting: asked, isDone: refusal == nil)
        }
        try await compareQueries()
        return refusal == nil
    }

    /// Sends a command and takes all that comes up to its answer.
    private func call(_ command: String, _ arguments: JSONObject) async throws -> Result<JSONValue, QMPError> {
        let answer = try await withinPatience("\(command) \(arguments)") { [client] in
            try await client.call(command, arguments)
        }
        for event in answer.events {
            note("  \(event["event"]?.stringValue ?? "") \(event["data"] ?? .null)")
            watch.take(event)
        }
        return answer.result
    }

    /// What the queries say is what the events have said.
    private func compareQueries() async throws {
        let blockJobs = try await call("query-block-jobs", [:])
        watch.compare(blockJobs: try blockJobs.get())
        let jobs = try await call("query-jobs", [:])
        watch.compare(jobs: try jobs.get())
    }

    private func withinPatience<T: Sendable>(
        _ what: String, _ body: @escaping @AgentActor () async throws -> T
    ) async throws -> T {
        let task = Task { @AgentActor in try await body() }
        let alarm = Task { @AgentActor in
            try await Task.sleep(nanoseconds: Self.patienceNanoseconds)
            print("simulation hangs in \(what)\n" + log.joined(separator: "\n"))
            preconditionFailure("a command hangs")
        }
        defer { alarm.cancel() }
        return try await task.value
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
        try await execute(
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

    /// Begins to look at all disks that are idle, and waits for a moment.
    func look() async throws {
        for disk in disks where disk.beginLook(mayFail: true) { _ = try await disk.untilIdle(milliseconds: 50) }
    }

    /// Looks at all disks, where nothing fails any more and nobody holds them still.
    private func lookAtAll() async throws {
        for disk in disks {
            try await withinPatience("a request of \(disk.name)") { await disk.untilIdle() }
            _ = disk.beginLook(mayFail: false)
            try await withinPatience("a look at \(disk.name)") { await disk.untilIdle() }
        }
    }

    /// Everything comes to an end, and nothing is left.
    private func end() async throws {
        dice.setRate(oneIn: 0)
        try await look()
        watch.cancelAll()
        try await withinPatience("the end of all jobs") { [agent] in await agent.jobs.cancelAll() }
        try await compareQueries()
        for job in watch.current { try await execute("job-dismiss", ["id": .string(job.asked.id)]) }
        watch.finish()
        try await lookAtAll()
        await agent.monitors.stop(milliseconds: 0)
        await BlockingPool.shared.run { [client] in client.close() }
        for disk in disks {
            if let node = disk.leave() { await agent.graph.letGo(node) }
        }
        await closeGraph()
        for number in 1...max(1, imageCount) { try await check(path(of: "n\(number)")) }
    }

    private func closeGraph() async {
        for node in agent.graph.nodes {
            if node.options == nil { complain("'\(node.name)', the filter of a job, is left") }
            if !node.drains.isEmpty || node.block.gate.isClosed { complain("'\(node.name)' is still drained") }
            for use in node.uses where use.parent == nil { complain("'\(node.name)' is held by \(use.user)") }
        }
        for failure in await agent.graph.closeAll() { complain("closing: \(failure)") }
        if !agent.graph.nodes.isEmpty { complain("nodes are left: \(agent.graph.nodes.map(\.name))") }
    }

    private func complain(_ words: String) { ownComplaints.append(words) }

    /// Clusters may be leaked where a request has failed; damage there must not be, nor a lock, which qemu-img would meet.
    private func check(_ path: String) async throws {
        let (status, output) = try await BlockingPool.shared.run { [tools] in
            try tools.run("qemu-img", ["check", "-q", "-f", "qcow2", path])
        }
        if status != 0, status != 3 { complain("qemu-img check \(path) ended with \(status): \(output)") }
    }
}

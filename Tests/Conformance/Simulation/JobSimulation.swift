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
    /// Of an image, as a rule.
    static let blockCount = 16
    private static let patienceNanoseconds: UInt64 = 300_000_000_000

    let agent: Agent
    let clock = SimulatedClock()
    var chance: SplitMix
    let tools: ToolFolder
    /// A third of the sequences meets no errors.
    let isCalm: Bool
    var images: [String] = []
    var imageCount = 0
    /// Those that were ever open.
    var opened: Set<String> = []
    /// Images that a job makes for later, by the job.
    var newImages: [String: String] = [:]
    /// Images that somebody has tried to overwrite.
    var overwritten: Set<String> = []
    var disks: [SimulatedDisk] = []
    /// Quorums with their thresholds.
    var quorums: [String: Int] = [:]
    var quorumCount = 0
    var filterCount = 0
    var snapshots: [SimulatedSnapshot] = []
    var snapshotCount = 0
    /// The node that shows a snapshot.
    var view: (node: String, snapshot: SimulatedSnapshot)?
    /// Images that jobs have opened themselves.
    var driven: [String] = []
    var backups: [SimulatedBackup] = []
    var jobCount = 0
    var groupCount = 0
    /// Counts what was sent.
    private(set) var commandCount = 0
    private(set) var watch = JobWatch()
    private let seed: UInt64
    /// Commands come by one or the other.
    private let clients: [MonitorClient]
    private var events = EventStreams(count: 2)
    private let folder: String
    private let emptyImage: [UInt8]
    /// Says each command before it runs, for one that ends the process.
    private let isTraced = ProcessControl.environment("COLDFRAME_SIMULATION_TRACE") != nil
    private(set) var log: [String] = []
    private var ownComplaints: [String] = []
    private var tally: [String: Int] = [:]

    init(seed: UInt64) throws {
        BranchTable.install(Modules.all.map(\.schema))
        self.seed = seed
        chance = SplitMix(state: seed)
        isCalm = chance.next(below: 3) == 0
        tools = try ToolFolder()
        folder = try Files.canonicalPath(tools.directory)
        let (empty, byteCount) = (tools.path("empty"), Self.blockCount * SimulatedDisk.blockByteCount)
        try tools.require("qemu-img", "create", "-q", "-f", "qcow2", empty, String(byteCount))
        emptyImage = try Files.readAll(empty, limit: 1 << 20)
        var configuration = Agent.Configuration(
            name: nil, allowedBackingFolders: [folder],
            logger: Logger(label: "simulation") { _ in SwiftLogNoOpLogHandler() })
        configuration.jobClock = clock
        agent = try Agent(configuration, modules: Modules.all)
        var clients: [MonitorClient] = []
        for id in ["first", "second"] {
            try agent.monitors.add(id: id, chardev: .unixServer(path: tools.path(id)))
            clients.append(try MonitorClient(path: tools.path(id)))
        }
        self.clients = clients
    }

    /// How often what has happened.
    var summary: [String: Int] { tally.merging(watch.fates, uniquingKeysWith: +) }

    var complaints: [String] {
        ownComplaints + watch.complaints + events.complaints + disks.flatMap(\.complaints)
    }

    func complain(_ words: String) { ownComplaints.append(words) }

    func note(_ words: String) {
        if isTraced { print(words) }
        log.append(words)
    }

    func run(commandCount: Int) async throws {
        for client in clients { try await client.negotiate() }
        for _ in 0..<3 { try await addImage() }
        for number in 0..<commandCount where complaints.isEmpty {
            // Each has chances of its own: they are the same again if one before it has ended otherwise.
            chance = SplitMix(state: seed &+ UInt64(number) << 32)
            try await step()
        }
        try await end()
    }

    func image() -> String { images[chance.next(below: images.count)] }

    func path(of image: String) -> String { "\(folder)/\(image)" }

    /// The file of a new image.
    func makeImage() throws -> String {
        imageCount += 1
        let name = "n\(imageCount)"
        try tools.write(emptyImage, to: name)
        return name
    }

    func node(_ name: String) -> GraphNode? { agent.graph.find(nodeName: name) }

    // MARK: Commands

    /// Whether it succeeded.
    /// - Parameter asked: the jobs that it starts.
    @discardableResult
    func execute(_ command: String, _ arguments: JSONObject, starting asked: [AskedJob] = []) async throws -> Bool {
        if isTraced { print("\(command) \(arguments) …") }
        commandCount += 1
        let verb = AskedVerb(command, arguments)
        let before = verb.flatMap { watch.histories[$0.id] }
        if let verb { watch.begin(verb) } else { watch.begin(starting: asked) }
        let result = try await call(command, arguments)
        var refusal: QMPError?
        if case .failure(let error) = result { refusal = error }
        tally["commands", default: 0] += 1
        if refusal == nil { tally["\(command)", default: 0] += 1 }
        note("\(command) \(arguments): \(refusal.map { "\($0)" } ?? "ok")")
        if let verb {
            watch.end(verb, refusal: refusal, before: before)
        } else {
            watch.end(starting: asked, isDone: refusal == nil)
        }
        try await compareQueries()
        for disk in disks { disk.forgetBehindEnd() }
        followNodes()
        forgetSnapshotsOverWriters()
        return refusal == nil
    }

    /// Sends a command by one of the monitors and takes all that comes up to its answer. The other one may ask something meanwhile.
    private func call(_ command: String, _ arguments: JSONObject) async throws -> Result<JSONValue, QMPError> {
        let (number, asks) = (chance.next(below: clients.count), oneIn(4))
        let (client, other) = (clients[number], clients[1 - number])
        let (answer, beside) = try await withinPatience("\(command) \(arguments)") {
            async let beside = asks ? other.call("query-named-block-nodes", ["flat": true]) : nil
            let answer = try await client.call(command, arguments)
            return (answer, try await beside)
        }
        events.take(answer.events, from: number)
        if let beside {
            events.take(beside.events, from: 1 - number)
            if case .failure(let error) = beside.result { complain("a query beside \(command) ends with \(error)") }
        }
        for event in events.news(of: number) {
            note("  \(event["event"]?.stringValue ?? "") \(event["data"] ?? .null)")
            if event["event"] == "BLOCK_JOB_ERROR" {
                tally["error: \(event["data"]?["action"]?.stringValue ?? "")", default: 0] += 1
            }
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

    /// Begins to look at all disks that are idle, and waits for a moment.
    func look() async throws {
        for disk in disks where disk.beginLook() { _ = try await disk.untilIdle(milliseconds: 50) }
    }

    // MARK: The end

    /// Everything comes to an end, and nothing is left.
    private func end() async throws {
        try await look()
        watch.cancelAll()
        try await withinPatience("the end of all jobs") { [agent] in await agent.jobs.cancelAll() }
        try await compareQueries()
        for job in watch.current { try await execute("job-dismiss", ["id": .string(job.asked.id)]) }
        watch.finish()
        for disk in disks {
            try await withinPatience("a request of \(disk.name)") { await disk.untilIdle() }
            _ = disk.beginLook(tries: FaultRules.patience)
            try await withinPatience("a look at \(disk.name)") { await disk.untilIdle() }
        }
        await agent.monitors.stop(milliseconds: 0)
        await BlockingPool.shared.run { [clients] in for client in clients { client.close() } }
        let shown = disks.map { disk in
            (disk, paths: paths(of: disk.use.node), votes: votes(of: disk))
        }
        followNodes()
        let kept = snapshots.map { ($0, paths: paths(of: node($0.image))) }
        for disk in disks {
            if let node = disk.leave() { await agent.graph.letGo(node) }
        }
        let open = Set(agent.graph.nodes.map(\.name))
        let isStored = await closeGraph()
        for name in opened where open.contains(name) || !overwritten.contains(name) { try await check(name) }
        guard isStored, complaints.isEmpty else { return }
        for (disk, paths, votes) in shown {
            if let votes {
                try await compareFiles(of: disk, votes.children, threshold: votes.threshold)
            } else if let paths {
                try await compareFiles(of: disk, [paths], threshold: 1)
            }
        }
        for (snapshot, paths) in kept {
            if let paths { try await compareFile(of: snapshot, paths) }
        }
        for backup in backups { try await compareFile(of: backup) }
    }

    /// The files that a node's content is in, the topmost first; nil if a quorum is among the images.
    private func paths(of node: GraphNode?) -> [String]? {
        guard let layers = node?.layers, !layers.contains(where: { quorums[$0.name] != nil }) else { return nil }
        return layers.map { path(of: $0.name) }
    }

    /// False if something could not be written, for which an injected error is the only excuse.
    private func closeGraph() async -> Bool {
        for node in agent.graph.nodes {
            if node.options == nil { complain("'\(node.name)', the filter of a job, is left") }
            if !node.drains.isEmpty || node.block.gate.isClosed { complain("'\(node.name)' is still drained") }
            if !node.isMonitorOwned, node.uses.isEmpty { complain("'\(node.name)' is left, and nobody uses it") }
            for use in node.uses where use.parent == nil { complain("'\(node.name)' is held by \(use.user)") }
            for bitmap in node.block.bitmaps.all where bitmap.name == nil || bitmap.state.isBusy {
                complain("bitmap '\(bitmap.name ?? "of a job")' of '\(node.name)' is left busy")
            }
        }
        let failures = await agent.graph.closeAll()
        for failure in failures where !"\(failure)".contains(FaultRules.words) { complain("closing: \(failure)") }
        if !agent.graph.nodes.isEmpty { complain("nodes are left: \(agent.graph.nodes.map(\.name))") }
        return failures.isEmpty
    }

    /// Clusters may be leaked where a request has failed; damage there must not be, nor a lock, which qemu-img would meet.
    private func check(_ name: String) async throws {
        let path = path(of: name)
        let (status, output) = try await BlockingPool.shared.run { [tools] in
            try tools.run("qemu-img", ["check", "-q", "-f", "qcow2", path])
        }
        if status != 0, status != 3 { complain("qemu-img check \(path) ended with \(status): \(output)") }
    }

    /// The files hold what the disk has shown: so many of the chains of files do.
    private func compareFiles(of disk: SimulatedDisk, _ chains: [[String]], threshold: Int) async throws {
        let layers = try await BlockingPool.shared.run { [tools] in
            try chains.map { try ImageLayer(paths: $0, isInUse: false, tools: tools) }
        }
        for (index, value) in disk.content {
            let found = layers.map { $0.blocks[index] ?? 0 }
            if found.count(where: { $0 == value }) < threshold {
                let words = found.map { $0.map { "\($0)" } ?? "a mixture" }.joined(separator: ", ")
                complain("in the files block \(index) of \(disk.name) holds \(words), not \(value)")
            }
        }
    }
}

import ColdframeKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

@testable import AgentCore

/// Everything that a snapshot job works with: nodes `d0`, `d1`, …, perhaps a guest, a journal in a folder of its own.
@AgentActor
final class World {
    let folder: String
    let journal: Journal
    let sets: SetStore
    let graph: Graph
    var leases: LeaseTable { graph.leases }
    let catalogue: Catalogue
    let lane = SnapshotLane()
    let factory = FakeFactory()
    private(set) var guest: FakeGuest?
    private(set) var events: [(name: String, data: JSONObject)] = []
    private(set) lazy var jobs = JobRegistry { [weak self] name, data in self?.events.append((name, data)) }
    private var jobCount = 0
    /// Long, so that a busy machine does not decide a test; those that are about it set their own.
    var holdLimitMilliseconds: UInt64 = 30_000

    init(disks: Int = 2, withGuest: Bool = false) async throws {
        FakeBranch.install
        folder = try Files.temporaryDirectory(prefix: "cf-core")
        journal = try Journal(path: folder + "/journal")
        sets = try SetStore(stateDirectory: folder)
        graph = Graph(
            factories: [factory, FakeFactory("file"), FakeFactory("qcow2")],
            gate: ImageReferenceGate(allowedFolders: []))
        catalogue = Catalogue(graph: graph)
        for index in 0..<disks { try await add("d\(index)") }
        if withGuest { guest = FakeGuest(disks: names) }
    }

    deinit { try? Files.removeTree(folder) }

    @discardableResult
    func add(_ name: String, readOnly: Bool = false, file: BlockdevRef? = nil) async throws -> FakeDisk {
        try await graph.add(
            BlockdevOptions(driver: "fake", nodeName: name, readOnly: readOnly, branch: FakeBranch(file: file)))
        return disk(name)
    }

    var names: [String] { graph.nodes.map(\.name).sorted() }

    func disk(_ name: String) -> FakeDisk {
        guard let disk = factory.disk(name) else { preconditionFailure("no disk \(name)") }
        return disk
    }

    var context: SnapshotContext {
        SnapshotContext(
            graph: graph, catalogue: catalogue, leases: leases, journal: journal, sets: sets, stateDirectory: nil,
            guest: { [weak self] in self?.guest }, guestOptions: { ["driver": "fake"] },
            replaceGuest: { [weak self] _, new in self?.guest = new as? FakeGuest },
            post: { [weak self] in self?.events.append(($0, $1)) },
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            holdLimitNanoseconds: holdLimitMilliseconds * 1_000_000)
    }

    // MARK: Jobs

    /// Starts a save and returns the job's id.
    func startSave(_ tag: String = "t", mode: SnapshotSaveMode? = nil, devices: [String]? = nil) throws -> String {
        let arguments = SnapshotSaveArguments(
            jobId: nextID(), tag: tag, vmstate: guest == nil ? nil : "d0", devices: devices ?? names, mode: mode)
        try jobs.start(id: arguments.jobId, driver: SaveJob(arguments, context: context, lane: lane))
        return arguments.jobId
    }

    /// The job's error, or nil.
    func save(_ tag: String = "t", mode: SnapshotSaveMode? = nil, devices: [String]? = nil) async throws -> String? {
        try await end(startSave(tag, mode: mode, devices: devices))
    }

    func load(
        _ tag: String = "t", devices: [String]? = nil, way: SnapshotLoadWay? = nil
    ) async throws -> String? {
        let arguments = SnapshotLoadArguments(
            jobId: nextID(), tag: tag, vmstate: guest == nil ? nil : "d0", devices: devices ?? names, way: way)
        try jobs.start(
            id: arguments.jobId,
            driver: LoadJob(arguments, context: context, lane: lane, stateDirectory: folder))
        return await end(arguments.jobId)
    }

    func delete(_ tag: String = "t", devices: [String]? = nil) async throws -> String? {
        let arguments = SnapshotDeleteArguments(jobId: nextID(), tag: tag, devices: devices ?? names)
        try jobs.start(id: arguments.jobId, driver: DeleteJob(arguments, context: context, lane: lane))
        return await end(arguments.jobId)
    }

    private func nextID() -> String {
        jobCount += 1
        return "j\(jobCount)"
    }

    /// Waits for the job's end, takes it away and returns its error.
    func end(_ id: String) async -> String? {
        while true {
            guard let job = jobs.information.first(where: { $0.id == id }) else { return "no job" }
            if job.status == .concluded {
                try? jobs.dismiss(id: id)
                return job.error
            }
            try? await Task.sleep(nanoseconds: 500_000)
        }
    }

    func events(_ name: String) -> [JSONObject] { events.filter { $0.name == name }.map(\.data) }

    /// What is wrong if a job that failed left anything: snapshots, writers, hidden tags, intents, held nodes, closed
    /// gates.
    func traces(of tag: String = "t") -> [String] {
        var found: [String] = []
        for name in names {
            let disk = disk(name)
            if disk.tags.contains(tag) { found.append("\(name) has \(tag)") }
            if disk.tags.contains(where: { $0.hasPrefix("coldframe-undo") }) { found.append("\(name) has an undo") }
            if disk.now.hasWriter { found.append("\(name) has a writer") }
        }
        return found + leftovers
    }

    /// What no job leaves, well ended or not.
    var leftovers: [String] {
        var found: [String] = []
        if !journal.pending.isEmpty { found.append("intents: \(journal.pending)") }
        for node in graph.nodes {
            if !node.uses.isEmpty { found.append("\(node.name) is held by \(node.uses[0].user)") }
            if node.block.gate.isClosed { found.append("the gate of \(node.name) is closed") }
            let seen = catalogue.sets.flatMap(\.members).filter { $0.nodeName == node.name }.count
            if seen != disk(node.name).snapshots.count { found.append("\(node.name) has hidden snapshots") }
        }
        if guest?.state != nil, guest?.state != .running { found.append("the guest does not run") }
        return found
    }
}

/// The error text of what `body` throws.
@AgentActor
func refusal(_ body: () async throws -> Void) async -> String? {
    do {
        try await body()
        return nil
    } catch {
        return ColdframeError(wrapping: error).message
    }
}

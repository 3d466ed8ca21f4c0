import ColdframeKit
import ConformanceKit
import FileProtocol
import LinuxSystem
import Logging
import QAPI
import Testing

@testable import AgentCore
@testable import Qcow2Format

/// Three real qcow2 images with the real core on them: journal, recovery, jobs. Opened and closed as often as one likes.
@AgentActor
final class CrashWorld {
    nonisolated static let names = ["d0", "d1", "d2"]
    nonisolated let folder: String
    private nonisolated var state: String { folder + "/state" }

    init() async throws {
        folder = try Files.canonicalPath(Files.temporaryDirectory(prefix: "cf-crash"))
        for path in [folder + "/state", folder + "/state/open-images", folder + "/state/sets"] { try Files.mkdir(path) }
        for name in Self.names {
            let path = "\(folder)/\(name)"
            try Descriptor.open(path, [.readWrite, .create]).close()
            let node = BlockNode(name: "file", driver: try PlainFile(path: path))
            var options = Qcow2Create.Options(diskByteCount: 1 << 20)
            options.clusterByteCount = 4096
            try Qcow2Create.write(options, into: node)
            try node.driver.close()
        }
    }

    deinit { try? Files.removeTree(folder) }

    /// An agent's parts from its start to its end in order.
    func withAgent<T>(_ body: (Running) async throws -> T) async throws -> T {
        let running = try Running(folder: folder, state: state)
        for name in Self.names { try await running.open(name) }
        let result: Result<T, any Error>
        do { result = .success(try await body(running)) } catch { result = .failure(error) }
        let failures = await running.graph.closeAll()
        #expect(failures.isEmpty, "\(failures)")
        return try result.get()
    }

    /// What our own count finds in each closed image.
    func findings() throws -> [LeakSweep.Findings] {
        try Self.names.map { name in
            let node = BlockNode(name: "file", driver: try PlainFile(path: "\(folder)/\(name)", isReadOnly: true))
            defer { try? node.driver.close() }
            var options = Qcow2Driver.Options()
            options.isReadOnly = true
            return try LeakSweep(Qcow2Driver(try Qcow2Image.read(node), backing: nil, options: options)).findings()
        }
    }

    /// What `qemu-img check` says of each image; empty where it finds nothing.
    nonisolated func complaints() throws -> [String] {
        try Self.names.compactMap { name in
            let pid = try ProcessControl.spawn(
                SpawnRequest(path: "qemu-img", arguments: ["check", "-q", "-f", "qcow2", "\(folder)/\(name)"]))
            let status = try ProcessControl.wait(pid)
            return status == .exited(0) ? nil : "\(name): \(status)"
        }
    }

    @AgentActor
    final class Running {
        let graph: Graph
        let journal: Journal
        let recovery: IntentRecovery
        private let catalogue: Catalogue
        private let lane = SnapshotLane()
        private let sets: SetStore
        private let folder: String
        private let jobs = JobRegistry { _, _ in }
        private var guest: FakeGuest?
        private let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

        init(folder: String, state: String) throws {
            self.folder = folder
            journal = try Journal(path: state + "/journal")
            sets = try SetStore(stateDirectory: state)
            graph = Graph(
                factories: FileProtocolModule.module.blockDrivers + [Qcow2Factory()],
                gate: ImageReferenceGate(allowedFolders: []),
                openImages: try OpenImages(stateDirectory: state, logger: logger))
            catalogue = Catalogue(graph: graph)
            recovery = IntentRecovery(
                graph: graph, journal: journal, catalogue: catalogue, sets: sets, logger: logger)
        }

        func open(_ name: String) async throws {
            let file = BlockdevOptions(driver: "file", branch: BlockdevOptionsFile(filename: "\(folder)/\(name)"))
            try await graph.add(
                BlockdevOptions(
                    driver: "qcow2", nodeName: name, branch: BlockdevOptionsQcow2(file: .definition(file))))
        }

        var nodes: [GraphNode] { get throws { try CrashWorld.names.map { try graph.find(nodeOnly: $0) } } }
        func moment() throws -> CrashMoment { try CrashMoment(reading: try nodes) }

        private var context: SnapshotContext {
            SnapshotContext(
                graph: graph, catalogue: catalogue, leases: graph.leases, journal: journal, sets: sets,
                stateDirectory: nil,
                guest: { [weak self] in self?.guest }, post: { _, _ in }, logger: logger,
                holdLimitNanoseconds: 30_000_000_000)
        }

        func run(_ operation: CrashOperation) async throws {
            switch operation {
            case .write(let blocks, let value):
                let bytes = [UInt8](repeating: UInt8(value), count: CrashMoment.blockByteCount)
                for (node, block) in zip(try nodes, blocks) {
                    let offset = UInt64(block * CrashMoment.blockByteCount)
                    try bytes.withUnsafeBytes { try node.block.write($0, at: offset) }
                }
                for node in try nodes { try node.block.flush() }
            case .save(let tag, let withGuest):
                guest = withGuest ? FakeGuest(disks: CrashWorld.names) : nil
                defer { guest = nil }
                let arguments = SnapshotSaveArguments(
                    jobId: "j", tag: tag, vmstate: withGuest ? "d1" : nil, devices: CrashWorld.names, mode: nil)
                try await end(SaveJob(arguments, context: context, lane: lane))
            case .load(let tag):
                let arguments = SnapshotLoadArguments(jobId: "j", tag: tag, vmstate: nil, devices: CrashWorld.names)
                try await end(LoadJob(arguments, context: context, lane: lane, stateDirectory: nil))
            case .delete(let tag):
                let arguments = SnapshotDeleteArguments(jobId: "j", tag: tag, devices: CrashWorld.names)
                try await end(DeleteJob(arguments, context: context, lane: lane))
            case .transaction(let tag):
                let actions = CrashWorld.names.map {
                    TransactionAction(
                        type: "blockdev-snapshot-internal-sync", branch: BlockdevSnapshotInternal(device: $0, name: tag)
                    )
                }
                try await TransactionCoordinator(context: context, jobs: jobs, lane: lane).run(.init(actions: actions))
            }
        }

        private func end(_ job: any JobDriver) async throws {
            try jobs.start(id: "j", driver: job)
            while true {
                let information = try #require(jobs.information.first)
                if information.status == .concluded {
                    try jobs.dismiss(id: "j")
                    if let error = information.error { throw ColdframeError(.io, error) }
                    return
                }
                try await Task.sleep(nanoseconds: 200_000)
            }
        }
    }
}

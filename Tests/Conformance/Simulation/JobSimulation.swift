import ColdframeKit
import ConformanceKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

@testable import AgentCore
@testable import coldframed

/// One random sequence of commands on a graph of up to six images, with writers, and requests that fail now and then.
@AgentActor
final class JobSimulation {
    private static let imageLimit = 6
    private static let byteCount = 1 << 20
    private static let patienceNanoseconds: UInt64 = 120_000_000_000

    private let agent: Agent
    private let folder: String
    private let dice: FaultDice
    private var chance: SplitMix
    private var images: [String] = []
    private var disks: [SimulatedDisk] = []
    private var imageCount = 0
    /// Says each command before it runs, for one that ends the process.
    private let isTraced = ProcessControl.environment("COLDFRAME_SIMULATION_TRACE") != nil
    private var jobCount = 0
    private(set) var log: [String] = []
    private(set) var complaints: [String] = []

    init(seed: UInt64) throws {
        BranchTable.install(Modules.all.map(\.schema) + [FlakyBranch.fragment])
        chance = SplitMix(state: seed)
        dice = FaultDice(seed: seed)
        folder = try Files.canonicalPath(Files.temporaryDirectory(prefix: "cf-sim"))
        let flaky = Module(name: "flaky", schema: FlakyBranch.fragment, blockDrivers: [FlakyFactory(dice: dice)])
        agent = try Agent(
            .init(
                name: nil, allowedBackingFolders: [folder],
                logger: Logger(label: "simulation") { _ in SwiftLogNoOpLogHandler() }), modules: Modules.all + [flaky])
    }

    deinit { try? Files.removeTree(folder) }

    func run(commandCount: Int) async throws {
        for _ in 0..<3 { await addImage() }
        for _ in 0..<commandCount where complaints.isEmpty {
            await step()
            // Half of the time nothing fails.
            if chance.next(below: 8) == 0 { dice.setRate(oneIn: [0, 0, 40, 200][chance.next(below: 4)]) }
        }
        try await end()
    }

    // MARK: Commands

    private func execute(_ command: String, _ arguments: JSONObject) async {
        if isTraced { print("\(command) \(arguments)") }
        let outcome = await withinPatience("\(command) \(arguments)") { [agent] in
            do {
                _ = try await agent.commands.execute(command, arguments)
                return "ok"
            } catch { return "\(error)" }
        }
        log.append("\(command) \(arguments): \(outcome)")
    }

    private func withinPatience(_ what: String, _ body: @escaping @AgentActor () async -> String) async -> String {
        let task = Task { @AgentActor in await body() }
        let alarm = Task { @AgentActor in
            try await Task.sleep(nanoseconds: Self.patienceNanoseconds)
            complaints.append("\(what) does not end")
            print("simulation hangs in \(what)\n" + log.joined(separator: "\n"))
            preconditionFailure("a command hangs")
        }
        defer { alarm.cancel() }
        return await task.value
    }

    private func addImage() async {
        guard images.count < Self.imageLimit else { return }
        imageCount += 1
        let name = "n\(imageCount)"
        let path = "\(folder)/\(name)"
        let create = try? ProcessControl.spawn(
            SpawnRequest(
                path: "qemu-img", arguments: ["create", "-q", "-f", "qcow2", path, String(Self.byteCount)],
                descriptors: []))
        guard let create, case .exited(0)? = try? ProcessControl.wait(create) else { return }
        var backing = JSONValue.null
        if !images.isEmpty, chance.next(below: 2) == 0 { backing = .string(image()) }
        images.append(name)
        await execute(
            "blockdev-add",
            [
                "driver": "qcow2", "node-name": .string(name), "discard": "unmap", "backing": backing,
                "file": ["driver": "flaky", "file": ["driver": "file", "filename": .string(path)]],
            ])
    }

    private func image() -> String { images[chance.next(below: images.count)] }

    private func job() -> String {
        let jobs = agent.jobs.jobs
        return jobs.isEmpty ? "none" : jobs[chance.next(below: jobs.count)].jobID
    }

    private func newJob(_ more: JSONObject) -> JSONObject {
        jobCount += 1
        var arguments = more
        arguments["job-id"] = .string("j\(jobCount)")
        if chance.next(below: 4) == 0 { arguments["auto-finalize"] = false }
        if chance.next(below: 4) == 0 { arguments["auto-dismiss"] = false }
        return arguments
    }

    private func policy() -> JSONValue { .string(["report", "ignore", "stop", "enospc"][chance.next(below: 4)]) }

    private func step() async {
        switch chance.next(below: 24) {
        case 0: await addImage()
        case 1: await remove(image())
        case 2, 3:
            let disk = SimulatedDisk(name: "x\(jobCount)-\(log.count)", on: node(image()) ?? agent.graph.nodes[0])
            if disks.count < 4, let disk { disks.append(disk) } else { _ = disk?.leave() }
        case 4...8:
            guard !disks.isEmpty else { return }
            let disk = disks[chance.next(below: disks.count)]
            let (value, index) = (UInt8(chance.next(below: 255) + 1), chance.next(below: 16))
            log.append("write \(value) to block \(index) of \(disk.name) on \(disk.nodeName ?? "")")
            await disk.write(value, to: index)
        case 9: await look(mayFail: true)
        case 10: await execute("blockdev-snapshot", ["node": .string(image()), "overlay": .string(image())])
        case 11:
            let arguments: JSONObject = ["device": .string(image()), "on-error": policy()]
            await execute("block-stream", newJob(arguments.merging(base("base-node", oneIn: 2))))
        case 12:
            var arguments: JSONObject = ["device": .string(image()), "on-error": policy()]
            arguments = arguments.merging(base("top-node", oneIn: 2)).merging(base("base-node", oneIn: 2))
            await execute("block-commit", newJob(arguments))
        case 13:
            await execute(
                "blockdev-mirror",
                newJob([
                    "device": .string(image()), "target": .string(image()), "sync": "full",
                    "copy-mode": chance.next(below: 2) == 0 ? "background" : "write-blocking",
                    "on-target-error": policy(),
                ]))
        case 14:
            await execute(
                "blockdev-backup",
                newJob([
                    "device": .string(image()), "target": .string(image()),
                    "sync": chance.next(below: 3) == 0 ? "none" : "full", "on-target-error": policy(),
                ]))
        case 15: await execute("job-complete", ["id": .string(job())])
        case 16: await execute("job-finalize", ["id": .string(job())])
        case 17: await execute("job-dismiss", ["id": .string(job())])
        case 18: await execute("job-cancel", ["id": .string(job())])
        case 19: await execute("block-job-cancel", ["device": .string(job())])
        case 20: await execute(chance.next(below: 2) == 0 ? "job-pause" : "job-resume", ["id": .string(job())])
        case 21: await reopen(image())
        case 22: await transaction()
        default: try? await Task.sleep(nanoseconds: UInt64(chance.next(below: 5)) * 1_000_000)
        }
    }

    private func node(_ name: String) -> GraphNode? { agent.graph.find(nodeName: name) }

    private func base(_ member: String, oneIn count: Int) -> JSONObject {
        chance.next(below: count) == 0 ? [member: .string(image())] : [:]
    }

    private func remove(_ name: String) async {
        guard images.count > 2 else { return }
        await execute("blockdev-del", ["node-name": .string(name)])
        if node(name) == nil { images.removeAll { $0 == name } }
    }

    private func reopen(_ name: String) async {
        guard let object = node(name)?.currentOptions?.object else { return }
        var options = object
        options["read-only"] = .bool(chance.next(below: 2) == 0)
        await execute("blockdev-reopen", ["options": [.object(options)]])
    }

    private func transaction() async {
        var actions: [JSONValue] = []
        for number in 0...chance.next(below: 3) {
            let bitmap = JSONValue.string("b\(chance.next(below: 3))")
            switch chance.next(below: 4) {
            case 0:
                actions.append(["type": "block-dirty-bitmap-add", "data": ["node": .string(image()), "name": bitmap]])
            case 1:
                actions.append([
                    "type": "blockdev-snapshot", "data": ["node": .string(image()), "overlay": .string(image())],
                ])
            case 2:
                let data = newJob(["device": .string(image()), "target": .string(image()), "sync": "full"])
                actions.append(["type": "blockdev-backup", "data": .object(data)])
            default:
                if number > 0, chance.next(below: 2) == 0 { actions.append(["type": "abort", "data": [:]]) }
            }
        }
        await execute("transaction", ["actions": .array(actions)])
    }

    // MARK: Looking

    private func look(mayFail: Bool) async {
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
        for number in 1...max(1, imageCount) { try check("\(folder)/n\(number)") }
    }

    /// Clusters may be leaked where a request has failed; damage there must not be.
    private func check(_ path: String) throws {
        guard Files.exists(path) else { return }
        let process = try ProcessControl.spawn(
            SpawnRequest(path: "qemu-img", arguments: ["check", "-q", "-U", "-f", "qcow2", path], descriptors: []))
        let status = try ProcessControl.wait(process)
        if status != .exited(0), status != .exited(3) { complaints.append("qemu-img check \(path): \(status)") }
    }
}

extension JSONObject {
    fileprivate func merging(_ other: JSONObject) -> JSONObject {
        var merged = self
        for (key, value) in other { merged[key] = value }
        return merged
    }
}

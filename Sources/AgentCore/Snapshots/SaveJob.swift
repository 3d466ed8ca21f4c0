import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// `snapshot-save`: finds the way, then lets a `SaveAttempt` (with a guest) or a plain cut (without) do it.
@AgentActor
final class SaveJob: JobDriver {
    let jobType = "snapshot-save"
    private let arguments: SnapshotSaveArguments
    private let context: SnapshotContext
    private let lane: SnapshotLane
    /// What `SNAPSHOT_SAVED` will say; set when the set is whole.
    private var saved: JSONObject?

    init(_ arguments: SnapshotSaveArguments, context: SnapshotContext, lane: SnapshotLane) {
        self.arguments = arguments
        self.context = context
        self.lane = lane
    }

    func run(_ control: any JobControl) async throws {
        try await lane.run(for: control) {
            try FaultPoint.pass("save.begin")
            let devices = try checkArguments()
            if let guest = context.guest(), arguments.mode != .disks {
                try await save(guest: guest, devices: devices, control)
            } else {
                try await saveDisks(devices, control)
            }
        }
    }

    func commit() async {
        if let saved { context.post("SNAPSHOT_SAVED", saved) }
        context.catalogue.changed()
    }

    func abort() async {
        context.catalogue.changed()
    }

    // MARK: Step 1, before anything is touched

    private func checkArguments() throws -> SnapshotDevices {
        guard !arguments.tag.isEmpty else { throw ColdframeError(.invalidArgument, "Name is empty") }
        let devices = try SnapshotDevices(names: arguments.devices, graph: context.graph)
        if devices.snapshots(tagged: arguments.tag).contains(where: { $0.snapshot != nil }) {
            throw ColdframeError(
                .alreadyExists, "Snapshot '\(arguments.tag)' already exists in one or more devices")
        }
        if let name = arguments.vmstate { _ = try devices.stateNode(named: name) }
        try context.refusePending(devices)
        return devices
    }

    private func stateNode(_ devices: SnapshotDevices) throws -> GraphNode {
        guard let name = arguments.vmstate else {
            throw ColdframeError(
                .invalidArgument, "Parameter 'vmstate' is missing: it names the node that takes the guest's state")
        }
        return try devices.stateNode(named: name)
    }

    /// A guest whose disk goes on while the others are wound back would see two moments at once.
    private func checkCoverage(of guest: any Guest, _ devices: SnapshotDevices) throws {
        let covered = Set(devices.nodes.map(\.name))
        let missing = guest.diskNodeNames.filter { name in
            !covered.contains(name) && !(context.graph.find(nodeName: name)?.block.isReadOnly ?? true)
        }
        guard missing.isEmpty else {
            throw ColdframeError(
                .invalidArgument,
                "The guest writes to \(missing.map { "'\($0)'" }.joined(separator: ", ")), which 'devices' does not "
                    + "name: a snapshot needs all disks of the guest")
        }
    }

    // MARK: Disks only

    private func saveDisks(_ devices: SnapshotDevices, _ control: any JobControl) async throws {
        if let mode = arguments.mode, ![.auto, .disks].contains(mode) {
            throw ColdframeError(
                .invalidArgument, "Mode '\(mode.rawValue)' needs a guest, and this agent has none")
        }
        // No data moves: QEMU's 0 of 1, then 1 of 1.
        control.setProgress(current: 0, total: 1)
        let plan = SavePlan(tag: arguments.tag, way: .disks, devices: devices)
        let steps = devices.nodes.map { InternalSnapshotStep(node: $0, request: plan.request(idFloor: 0)) }
        context.catalogue.hide(uuid: plan.uuid)
        defer { context.catalogue.show(uuid: plan.uuid) }
        try await context.record(.begin, plan.intent)
        do {
            let transaction = Transaction(steps, graph: context.graph)
            try await transaction.check()
            try await transaction.drain(deadlineNanoseconds: nil)
            defer { transaction.letGo() }
            for step in steps { try FaultPoint.pass("save.cut.\(step.node.name)") }
            try await transaction.cut(concurrently: true)
            do {
                try await control.checkpoint()
                try FaultPoint.pass("save.commit")
                try await context.record(.committed, plan.intent(with: steps))
            } catch {
                try await transaction.abort()
                throw error
            }
            await transaction.commit()
        } catch {
            try await clear(plan)
            throw error
        }
        control.setProgress(current: 1, total: 1)
        try await clear(plan)
        saved = event(plan, result: SaveResult(pauseNanoseconds: nil, stateByteCount: 0, way: "disks"), reasons: [])
    }

    // MARK: With a guest

    private func save(guest: any Guest, devices: SnapshotDevices, _ control: any JobControl) async throws {
        try checkCoverage(of: guest, devices)
        let stateNode = try stateNode(devices)
        let machine = try await guest.machineIdentity()
        let wasRunning = try await guest.runState() == .running
        var reasons: [String] = []
        for way in candidates(wasRunning: wasRunning) {
            try await control.checkpoint()
            let blockers = try await guest.blockers(for: way)
            if blockers.isEmpty {
                let plan = SavePlan(tag: arguments.tag, way: way.recordWay, devices: devices)
                let attempt = SaveAttempt(
                    context: context, guest: guest, devices: devices, stateNode: stateNode, way: way, plan: plan)
                context.catalogue.hide(uuid: plan.uuid)
                defer { context.catalogue.show(uuid: plan.uuid) }
                try await context.record(.begin, plan.intent)
                let result = try await carryOut(attempt, plan, machine, wasRunning: wasRunning, control)
                if let result {
                    saved = event(plan, result: result, reasons: reasons)
                    return
                }
            }
            reasons += blockers.map { "\(way.rawValue): \($0)" }
            if arguments.mode == nil || arguments.mode == .auto {
                context.post(
                    "SNAPSHOT_SAVE_FALLBACK",
                    [
                        "job-id": .string(control.jobID), "tag": .string(arguments.tag), "way": .string(way.rawValue),
                        "reasons": .array(blockers.map { .string($0) }),
                    ])
            }
        }
        throw ColdframeError(
            .unsupported, "Snapshot '\(arguments.tag)' cannot be made: \(reasons.joined(separator: "; "))")
    }

    private func candidates(wasRunning: Bool) -> [CaptureWay] {
        switch arguments.mode ?? .auto {
        case .live: [.live]
        case .precopy: [.precopy]
        case .paused: [.paused]
        // A guest that stands still is saved as it stands.
        case .auto, .disks: wasRunning ? [.live, .precopy, .paused] : [.paused]
        }
    }

    private func carryOut(
        _ attempt: SaveAttempt, _ plan: SavePlan, _ machine: MachineIdentity, wasRunning: Bool,
        _ control: any JobControl
    ) async throws -> SaveResult? {
        do {
            control.setPausable(false)
            defer { control.setPausable(true) }
            try await attempt.begin()
            let result = try await attempt.run(control)
            do {
                try FaultPoint.pass("save.commit")
                try await describe(plan, machine, wasRunning: wasRunning, result)
                try await context.record(.committed, plan.intent)
            } catch {
                try await attempt.undo(because: error)
            }
            await attempt.commit()
            control.setProgress(current: result.stateByteCount, total: result.stateByteCount)
            try await clear(plan)
            return result
        } catch {
            try await clear(plan)
            throw error
        }
    }

    private func describe(
        _ plan: SavePlan, _ machine: MachineIdentity, wasRunning: Bool, _ result: SaveResult
    ) async throws {
        guard let sets = context.sets else { return }
        let description = SetStore.Description(
            tag: plan.tag, way: result.way, wasRunning: wasRunning, machine: machine,
            pauseNanoseconds: result.pauseNanoseconds)
        let uuid = plan.uuid
        try await blocking { () throws(ColdframeError) in try sets.write(description, uuid: uuid) }
    }

    private func clear(_ plan: SavePlan) async throws {
        try await context.record(.cleared, plan.intent)
    }

    private func event(_ plan: SavePlan, result: SaveResult, reasons: [String]) -> JSONObject {
        var data: JSONObject = [
            "job-id": .string(arguments.jobId), "tag": .string(plan.tag), "uuid": .string(plan.uuid),
            "way": .string(result.way),
        ]
        if let pause = result.pauseNanoseconds { data["pause-ns"] = JSONValue(pause) }
        data["bytes"] = JSONValue(result.stateByteCount)
        if !reasons.isEmpty { data["reason"] = .string(reasons.joined(separator: "; ")) }
        return data
    }
}

extension CaptureWay {
    fileprivate var recordWay: SetRecord.Way {
        switch self {
        case .live: .live
        case .precopy: .precopy
        case .paused: .paused
        }
    }
}

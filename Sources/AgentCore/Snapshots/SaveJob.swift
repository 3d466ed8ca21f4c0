import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// `snapshot-save`: finds the way, then lets a `SaveAttempt` (with a guest) or a plain cut (without) do it.
@AgentActor
final class SaveJob: JobDriver {
    let jobType = "snapshot-save"
    let outlivesLateCancel = true
    private let arguments: SnapshotSaveArguments
    private let context: SnapshotContext
    private let lane: SnapshotLane
    /// Other actions of one transaction: they share the moment.
    private let companions: [any TransactionStep]
    /// What `SNAPSHOT_SAVED` will say; set when the set is whole.
    private var saved: JSONObject?

    init(
        _ arguments: SnapshotSaveArguments, context: SnapshotContext, lane: SnapshotLane,
        with companions: [any TransactionStep] = []
    ) {
        self.companions = companions
        self.arguments = arguments
        self.context = context
        self.lane = lane
    }

    func run(_ control: any JobControl) async throws {
        try await lane.run(for: control) {
            try FaultPoint.saveBegin.pass()
            let devices = try checkArguments()
            try await context.holding(devices, for: jobType) {
                if let guest = context.guest(), arguments.mode != .disks {
                    try await save(guest: guest, devices: devices, control)
                } else {
                    try await saveDisks(devices, control)
                }
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
        if arguments.mode != .disks, let guest = context.guest() {
            try LeftNodes(guest: guest, context: context).refuse(arguments.devices)
        }
        let devices = try SnapshotDevices(names: arguments.devices, graph: context.graph)
        if devices.snapshots(tagged: arguments.tag).contains(where: { $0.snapshot != nil }) {
            throw ColdframeError(
                .alreadyExists, "Snapshot '\(arguments.tag)' already exists in one or more devices")
        }
        if let name = arguments.vmstate { _ = try devices.stateNode(named: name) }
        try context.refusePending(devices.nodes)
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
        let plan = SavePlan(tag: arguments.tag, way: .disks, devices: devices)
        let steps = devices.nodes.map {
            InternalSnapshotStep(node: $0, request: plan.request(idFloor: 0), faultPoint: .saveCut)
        }
        try await control.checkpoint()
        context.catalogue.hide(plan.intent)
        do {
            try await context.record(.begin, plan.intent)
            try FaultPoint.saveIntent.pass()
            let transaction = Transaction(steps, with: companions, graph: context.graph)
            try await transaction.check()
            try await transaction.drain(deadlineNanoseconds: SystemClock.monotonicNanoseconds() + 10_000_000_000)
            defer { transaction.letGo() }
            try await transaction.cut(concurrently: true)
            do {
                // No checkpoint: a pause here would leave the gates closed.
                if control.isCancelled { throw ColdframeError(.cancelled, "Operation canceled") }
                try FaultPoint.saveCommit.pass()
                try await context.record(.committed, plan.intent(with: steps))
            } catch {
                try await transaction.abort()
                throw error
            }
            await transaction.commit()
        } catch {
            await close(plan, isUndone: steps.allSatisfy(\.isUndone))
            throw error
        }
        await close(plan, isUndone: true)
        saved = event(plan, result: SaveResult(pauseNanoseconds: nil, stateByteCount: 0, way: "disks"), reasons: [])
    }

    // MARK: With a guest

    private func save(guest: any Guest, devices: SnapshotDevices, _ control: any JobControl) async throws {
        try checkCoverage(of: guest, devices)
        let stateNode = try stateNode(devices)
        let machine = try await guest.machineIdentity()
        let wasRunning = try await Self.isRunning(guest)
        var reasons: [String] = []
        let ways = candidates(wasRunning: wasRunning)
        for (index, way) in ways.enumerated() {
            try await control.checkpoint()
            var blockers = try await guest.blockers(for: way)
            if blockers.isEmpty {
                await guest.prepareCapture(way: way) { control.isCancelled }
                try await control.checkpoint()
                let plan = SavePlan(
                    tag: arguments.tag, way: way.recordWay, devices: devices, guestWasRunning: wasRunning)
                let attempt = SaveAttempt(
                    context: context, guest: guest, devices: devices, stateNode: stateNode, way: way, plan: plan,
                    companions: companions)
                do {
                    let result = try await carryOut(attempt, plan, machine, wasRunning: wasRunning, control)
                    saved = event(plan, result: result, reasons: reasons)
                    return
                } catch let refusal as CaptureRefusal {
                    if control.isCancelled { throw ColdframeError(.cancelled, "Operation canceled") }
                    blockers = [refusal.cause.message]
                }
            }
            reasons += blockers.map { "\(way.rawValue): \($0)" }
            if index + 1 < ways.count {
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

    private static func isRunning(_ guest: any Guest) async throws -> Bool {
        switch try await guest.runState() {
        case .running: true
        case .stopped: false
        case .gone(let reason): throw ColdframeError(.peer, "Guest '\(guest.id)' is gone: \(reason)")
        }
    }

    private func carryOut(
        _ attempt: SaveAttempt, _ plan: SavePlan, _ machine: MachineIdentity, wasRunning: Bool,
        _ control: any JobControl
    ) async throws -> SaveResult {
        control.setPausable(false)
        defer { control.setPausable(true) }
        context.catalogue.hide(plan.intent)
        do {
            try await context.record(.begin, plan.intent)
            try FaultPoint.saveIntent.pass()
            try await attempt.begin()
            let result = try await attempt.run(control)
            do {
                try FaultPoint.saveCommit.pass()
                try await describe(plan, machine, wasRunning: wasRunning, result)
                try await context.record(.committed, plan.intent)
            } catch {
                await forget(plan)
                try await attempt.undo(because: error)
            }
            await attempt.commit()
            control.setProgress(current: result.stateByteCount, total: result.stateByteCount)
            await close(plan, isUndone: true)
            return result
        } catch {
            await close(plan, isUndone: attempt.isUndone)
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

    private func forget(_ plan: SavePlan) async {
        guard let sets = context.sets else { return }
        let uuid = plan.uuid
        await BlockingPool.shared.run { sets.remove(uuid: uuid) }
    }

    /// The save is over. What could not be undone stays hidden and in the journal, for the agent's next start.
    private func close(_ plan: SavePlan, isUndone: Bool) async {
        guard isUndone else { return }
        // Tests kill here; an error has no meaning any more.
        try? FaultPoint.saveCommitted.pass()
        context.catalogue.show(plan.intent)
        await context.clear(plan.intent)
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

import ColdframeKit
import LinuxSystem
import QAPI

/// `snapshot-load`: winds the disks back and, with a guest, puts the state into its running process.
///
/// Everything that can be known is checked before the guest is stopped or a disk is touched: the set, its members, the
/// state's length and checksum, the machine. From there on a failure winds the disks forward again by the undo.
@AgentActor
final class LoadJob: JobDriver {
    let jobType = "snapshot-load"
    private let arguments: SnapshotLoadArguments
    private let context: SnapshotContext
    private let lane: SnapshotLane
    /// Where the small image for the guest is made; nil for an agent without a name, which has no guest.
    private let stateDirectory: String?

    init(
        _ arguments: SnapshotLoadArguments, context: SnapshotContext, lane: SnapshotLane, stateDirectory: String?
    ) {
        self.arguments = arguments
        self.context = context
        self.lane = lane
        self.stateDirectory = stateDirectory
    }

    func run(_ control: any JobControl) async throws {
        try await lane.run(for: control) {
            try FaultPoint.pass("load.begin")
            let devices = try SnapshotDevices(names: arguments.devices, graph: context.graph)
            let targets = try targets(devices)
            try context.refusePending(devices)
            if let guest = context.guest() {
                try await load(guest, devices, targets, control)
            } else {
                try await rewind(devices, targets, control)
            }
        }
    }

    func commit() async { context.catalogue.changed() }
    func abort() async { context.catalogue.changed() }

    // MARK: Checks

    private func targets(_ devices: SnapshotDevices) throws -> [SnapshotInfo] {
        let found = devices.snapshots(tagged: arguments.tag)
        let targets = found.compactMap(\.snapshot)
        guard targets.count == found.count else {
            throw ColdframeError(.notFound, "Snapshot '\(arguments.tag)' does not exist in one or more devices")
        }
        if let name = arguments.vmstate { _ = try devices.stateNode(named: name) }
        let records = targets.map { SetRecord($0.annotation) }
        if let record = records.first(where: { $0 != nil }) ?? nil {
            guard records.allSatisfy({ $0?.uuid == record.uuid }) else {
                throw ColdframeError(
                    .invalidArgument,
                    "The snapshots named '\(arguments.tag)' on these devices are not of one save: they show different "
                        + "moments")
            }
            guard Int(record.memberCount) == targets.count else {
                throw ColdframeError(
                    .invalidArgument,
                    "Snapshot '\(arguments.tag)' was made of \(record.memberCount) devices, and \(targets.count) are "
                        + "given: name them all")
            }
        }
        return targets
    }

    private func checkMachine(_ guest: any Guest, _ targets: [SnapshotInfo]) async throws {
        guard let record = targets.lazy.compactMap({ SetRecord($0.annotation) }).first,
            let saved = context.sets?.read(uuid: record.uuidText)
        else { return }
        let now = try await guest.machineIdentity()
        var differences: [String] = []
        if saved.machine.machineType != now.machineType {
            differences.append("machine type '\(saved.machine.machineType)', now '\(now.machineType)'")
        }
        if saved.machine.memoryByteCount != now.memoryByteCount {
            differences.append("\(saved.machine.memoryByteCount) bytes of memory, now \(now.memoryByteCount)")
        }
        if saved.machine.commandLine != now.commandLine {
            differences.append("another command line: \(saved.machine.commandLine.joined(separator: " "))")
        }
        guard differences.isEmpty else {
            throw ColdframeError(
                .invalidArgument,
                "Snapshot '\(arguments.tag)' is of another machine than the running one: it had "
                    + differences.joined(separator: "; "))
        }
    }

    private func checkCoverage(of guest: any Guest, _ devices: SnapshotDevices) throws {
        let given = Set(devices.nodes.map(\.name))
        let missing = guest.diskNodeNames.filter {
            !given.contains($0) && !(context.graph.find(nodeName: $0)?.block.isReadOnly ?? true)
        }
        guard missing.isEmpty else {
            throw ColdframeError(
                .invalidArgument,
                "The guest writes to \(missing.map { "'\($0)'" }.joined(separator: ", ")), which 'devices' does not "
                    + "name: its disks go back together or not at all")
        }
    }

    // MARK: Without a guest

    private func rewind(
        _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ control: any JobControl
    ) async throws {
        let intent = intent(devices)
        try await context.record(.begin, intent)
        let transaction = transaction(devices, targets, intent)
        do {
            try await transaction.drain(deadlineNanoseconds: nil)
            defer { transaction.letGo() }
            try await transaction.cut(concurrently: true)
            try await context.record(.committed, intent)
        } catch {
            try await context.record(.cleared, intent)
            throw error
        }
        await transaction.commit()
        try await context.record(.cleared, intent)
    }

    // MARK: With a guest, in place

    private func load(
        _ guest: any Guest, _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ control: any JobControl
    ) async throws {
        try checkCoverage(of: guest, devices)
        try await checkMachine(guest, targets)
        let image = try await makeStateImage(devices, targets, control)
        defer { image.remove() }
        try await control.checkpoint()
        control.setPausable(false)
        defer { control.setPausable(true) }

        let wasRunning = try await guest.runState() == .running
        let intent = intent(devices)
        try await context.record(.begin, intent)
        do {
            if wasRunning { try await guest.stop() }
            let transaction = transaction(devices, targets, intent)
            try await rewindUnder(guest, transaction, wasRunning: wasRunning)
            do {
                try FaultPoint.pass("load.state")
                try await guest.loadState(imagePath: image.path, tag: arguments.tag)
                try await context.record(.committed, intent)
            } catch {
                try await transaction.abort()
                let error = ColdframeError(wrapping: error)
                throw ColdframeError(
                    error.code,
                    "\(error.message). The disks are as before the load, but the guest's memory is lost and it stays "
                        + "stopped: load a snapshot, or reset it", errno: error.errno)
            }
            if wasRunning { try await guest.cont() }
            await transaction.commit()
        } catch {
            try await context.record(.cleared, intent)
            throw error
        }
        try await context.record(.cleared, intent)
    }

    /// Winds the disks back; if that fails, the guest goes on as it was.
    private func rewindUnder(_ guest: any Guest, _ transaction: Transaction, wasRunning: Bool) async throws {
        do {
            try await transaction.drain(deadlineNanoseconds: SystemClock.monotonicNanoseconds() + 10_000_000_000)
            defer { transaction.letGo() }
            try await transaction.cut(concurrently: true)
        } catch {
            if wasRunning { try await guest.cont() }
            throw error
        }
    }

    private func makeStateImage(
        _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ control: any JobControl
    ) async throws -> StateImage {
        guard let name = arguments.vmstate else {
            throw ColdframeError(
                .invalidArgument, "Parameter 'vmstate' is missing: it names the node that holds the guest's state")
        }
        let stateNode = try devices.stateNode(named: name)
        guard let index = devices.nodes.firstIndex(where: { $0 === stateNode }), let stateDirectory,
            targets[index].vmStateByteCount > 0
        else {
            throw ColdframeError(
                .invalidArgument, "This is a disk-only snapshot. Revert to it  offline using qemu-img")
        }
        let lease = try await context.leases.open(
            node: stateNode, snapshotID: targets[index].id, holder: "job '\(control.jobID)'")
        defer { lease.release() }
        guard let source = lease.vmState else {
            throw ColdframeError(.unsupported, "The state of snapshot '\(arguments.tag)' cannot be read")
        }
        let folder = try AgentDirectories.make(stateDirectory + "/load")
        let image = try await StateImage.make(
            at: "\(folder)/\(UUIDText.generate()).qcow2", tag: arguments.tag, from: source, graph: context.graph,
            control: control)
        if let saved = SetRecord(targets[index].annotation)?.state, saved != image.state {
            image.remove()
            throw ColdframeError(
                .corrupt,
                "The state of snapshot '\(arguments.tag)' on '\(name)' is damaged: its checksum is not the one of the "
                    + "save. Nothing was changed")
        }
        return image
    }

    // MARK: Parts

    private func intent(_ devices: SnapshotDevices) -> Intent {
        Intent(uuid: UUIDText.generate(), operation: .load, tag: arguments.tag, images: devices.intentImages)
    }

    private func transaction(
        _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ intent: Intent
    ) -> Transaction {
        let undo = SnapshotRequest(name: "coldframe-undo-\(intent.uuid)", at: SystemClock.realtime())
        let steps = zip(devices.nodes, targets).map { node, target in
            RewindStep(node: node, target: target, undoRequest: undo, catalogue: context.catalogue)
        }
        return Transaction(steps, graph: context.graph)
    }
}

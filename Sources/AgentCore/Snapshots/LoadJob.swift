import ColdframeKit
import LinuxSystem
import QAPI

/// `snapshot-load`: winds the disks back and, with a guest, puts the state into its running process, or into a new one
/// (`LoadJob+Replacement`).
///
/// Everything that can be known is checked before the guest is stopped or a disk is touched: the set, its members, the
/// state's length and checksum, the machine. From there on a failure winds the disks forward again by the undo.
@AgentActor
final class LoadJob: JobDriver {
    let jobType = "snapshot-load"
    let outlivesLateCancel = true
    let arguments: SnapshotLoadArguments
    let context: SnapshotContext
    private let lane: SnapshotLane
    /// Where the small image for the guest is made; nil for an agent without a name, which has no guest.
    private let stateDirectory: String?
    let preflight: LoadPreflight

    init(
        _ arguments: SnapshotLoadArguments, context: SnapshotContext, lane: SnapshotLane, stateDirectory: String?
    ) {
        self.arguments = arguments
        self.context = context
        self.lane = lane
        self.stateDirectory = stateDirectory
        preflight = LoadPreflight(arguments: arguments, context: context)
    }

    func run(_ control: any JobControl) async throws {
        try await lane.run(for: control) {
            try FaultPoint.loadBegin.pass()
            if let guest = context.guest() {
                let left = LeftNodes(guest: guest, context: context)
                try left.refuseLoad(of: arguments.tag)
                try left.refuse(arguments.devices)
            }
            let devices = try SnapshotDevices(names: arguments.devices, graph: context.graph)
            let targets = try preflight.targets(devices)
            try context.refusePending(devices.nodes)
            try await context.holding(devices, for: jobType) {
                switch (context.guest(), arguments.way ?? .auto) {
                case (let guest?, .replace): try await replace(guest, devices, targets, control)
                case (let guest?, _): try await load(guest, devices, targets, control)
                case (nil, .replace):
                    throw ColdframeError(
                        .invalidArgument, "Way 'replace' is for guests, and this agent has none: leave it out")
                case (nil, _): try await rewind(devices, targets, control)
                }
            }
        }
    }

    func commit() async { context.catalogue.changed() }
    func abort() async { context.catalogue.changed() }

    // MARK: Without a guest

    private func rewind(
        _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ control: any JobControl
    ) async throws {
        try await control.checkpoint()
        let intent = intent(devices)
        let transaction = transaction(devices, targets, intent)
        context.catalogue.hide(intent)
        do {
            try await context.record(.begin, intent)
            try FaultPoint.loadIntent.pass()
            try await transaction.drain(deadlineNanoseconds: Self.drainDeadline)
            defer { transaction.letGo() }
            try await transaction.cut(concurrently: true)
            do {
                try FaultPoint.loadCommit.pass()
                try await context.record(.committed, intent)
            } catch {
                try await transaction.abort()
                throw error
            }
        } catch {
            await close(intent, isUndone: transaction.isUndone)
            throw error
        }
        // Tests kill here; an error has no meaning any more.
        try? FaultPoint.loadCommitted.pass()
        await transaction.commit()
        await close(intent, isUndone: true)
    }

    static var drainDeadline: UInt64 { SystemClock.monotonicNanoseconds() + 10_000_000_000 }

    /// The load is over. What could not be undone stays hidden and in the journal, for the agent's next start.
    func close(_ intent: Intent, isUndone: Bool) async {
        guard isUndone else { return }
        context.catalogue.show(intent)
        await context.clear(intent)
    }

    // MARK: With a guest, in place

    private func load(
        _ guest: any Guest, _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ control: any JobControl
    ) async throws {
        try preflight.checkCoverage(of: guest, devices)
        try await preflight.checkMachine(guest, targets)
        let image = try await makeStateImage(devices, targets, control)
        do {
            try await control.checkpoint()
            try await load(image, into: guest, devices, targets, control)
        } catch {
            await image.remove()
            throw error
        }
        await image.remove()
    }

    private func load(
        _ image: StateImage, into guest: any Guest, _ devices: SnapshotDevices, _ targets: [SnapshotInfo],
        _ control: any JobControl
    ) async throws {
        control.setPausable(false)
        guest.setHeld(true)
        defer {
            guest.setHeld(false)
            control.setPausable(true)
        }
        let wasRunning: Bool
        switch try await guest.runState() {
        case .running: wasRunning = true
        case .stopped: wasRunning = false
        case .gone(let reason): throw ColdframeError(.peer, "Guest '\(guest.id)' is gone: \(reason)")
        }
        let intent = intent(devices, guestWasRunning: wasRunning)
        let transaction = transaction(devices, targets, intent)
        context.catalogue.hide(intent)
        do {
            try await context.record(.begin, intent)
            try FaultPoint.loadIntent.pass()
            try await rewind(transaction, intent, under: guest, wasRunning: wasRunning)
            do {
                try FaultPoint.loadState.pass()
                try await guest.loadState(imagePath: image.path, tag: arguments.tag)
                try FaultPoint.loadCommit.pass()
                try await context.record(.committed, intent)
            } catch {
                try await putBack(transaction, intent, guest, because: error)
            }
        } catch {
            await close(intent, isUndone: transaction.isUndone)
            throw error
        }
        try? FaultPoint.loadCommitted.pass()  // Too late to fail.
        await guest.concludeLoad()
        var failure: (any Error)?
        if wasRunning {
            do { try await guest.cont() } catch { failure = error }
        }
        try? FaultPoint.loadContinued.pass()
        await transaction.commit()
        await close(intent, isUndone: true)
        if let failure {
            throw ColdframeError(wrapping: failure).prefixed(
                "Snapshot '\(arguments.tag)' is loaded, but the guest does not go on")
        }
    }

    /// Stops the guest and winds the disks back; if that fails, the guest goes on as it was.
    private func rewind(
        _ transaction: Transaction, _ intent: Intent, under guest: any Guest, wasRunning: Bool
    ) async throws {
        do {
            if wasRunning { try await guest.stop() }
            try FaultPoint.loadStopped.pass()
            try await transaction.drain(deadlineNanoseconds: Self.drainDeadline)
            defer { transaction.letGo() }
            try await transaction.cut(concurrently: true)
            do {
                // Its gates are closed: whatever it did if somebody made it run meanwhile has not come to a disk.
                if try await guest.runState() == .running {
                    throw ColdframeError(.busy, "Guest '\(guest.id)' was made to run while its disks were wound back")
                }
                // From here on the next agent asks the guest whether its memory is the old or the loaded one.
                try await context.record(.cut, intent)
            } catch {
                try await transaction.abort()
                throw error
            }
        } catch {
            try await letGoOn(guest, transaction, wasRunning: wasRunning, because: error)
        }
    }

    /// Nothing was loaded: the guest goes on if it ran, unless its disks could not be put back.
    func letGoOn(
        _ guest: any Guest, _ transaction: Transaction, wasRunning: Bool, because cause: any Error
    ) async throws -> Never {
        guard wasRunning else { throw cause }
        let cause = ColdframeError(wrapping: cause)
        guard transaction.isUndone else {
            throw ColdframeError(
                cause.code, "\(cause.message). The guest stays stopped: its disks are not of one moment",
                errno: cause.errno)
        }
        do {
            try await guest.cont()
        } catch {
            throw ColdframeError(
                cause.code, "\(cause.message); the guest does not go on: \(ColdframeError(wrapping: error).message)",
                errno: cause.errno)
        }
        throw cause
    }

    /// The guest's memory is not what it was any more: its disks are put back, and it stays stopped.
    private func putBack(
        _ transaction: Transaction, _ intent: Intent, _ guest: any Guest, because cause: any Error
    ) async throws -> Never {
        let cause = ColdframeError(wrapping: cause)
        var unrecorded = ""
        do {
            try guest.setMemoryLost(true)
        } catch {
            unrecorded =
                " (before the agent is started again, which would not know it: \(ColdframeError(wrapping: error).message))"
        }
        do {
            // First, so that no later agent takes what is in memory for the old or the loaded state.
            try await context.record(.lost, intent)
            try FaultPoint.loadLost.pass()
            try await transaction.abort()
            await guest.concludeLoad()
        } catch {
            throw ColdframeError(
                cause.code,
                "\(cause.message); putting the disks back failed too: \(ColdframeError(wrapping: error).message). The "
                    + "guest stays stopped", errno: cause.errno)
        }
        throw ColdframeError(
            cause.code,
            "\(cause.message). The disks are as before the load, but the guest's memory is lost and it stays "
                + "stopped: load a snapshot, or reset it\(unrecorded)", errno: cause.errno)
    }

    private func makeStateImage(
        _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ control: any JobControl
    ) async throws -> StateImage {
        let (node, target) = try stateMember(devices, targets)
        guard let stateDirectory else {
            throw ColdframeError(.invalidArgument, "An agent without a name has no folder for the guest's state")
        }
        let (lease, source) = try await openState(node, target, control)
        defer { lease.release() }
        let folder = try await blocking { () throws(ColdframeError) in
            try AgentDirectories.make(stateDirectory + "/load")
        }
        let image = try await StateImage.make(
            at: "\(folder)/\(UUIDText.generate()).qcow2", tag: arguments.tag, from: source, graph: context.graph,
            control: control)
        do {
            try check(image.state, node, target)
        } catch {
            await image.remove()
            throw error
        }
        return image
    }

    // MARK: Parts

    func intent(_ devices: SnapshotDevices, guestWasRunning: Bool? = nil) -> Intent {
        Intent(
            uuid: UUIDText.generate(), operation: .load, tag: arguments.tag, images: devices.intentImages,
            guestWasRunning: guestWasRunning)
    }

    func transaction(
        _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ intent: Intent
    ) -> Transaction {
        var undo = SnapshotRequest(name: intent.undoName, at: SystemClock.realtime())
        // So that the catalogue can hide it from its first moment, and recovery know whose it is.
        undo.annotation = SetRecord(uuid: intent.uuid, memberCount: devices.nodes.count, way: .disks).bytes
        let steps = zip(devices.nodes, targets).map { node, target in
            RewindStep(node: node, target: target, undoRequest: undo)
        }
        return Transaction(steps, graph: context.graph)
    }
}

import ColdframeKit
import KeeperWire
import LinuxSystem
import QMPWire

/// A second QEMU of the guest, that is fed a state and takes the place of the first.
///
/// It is the agent's own until then: its events and its end are told to nobody, so that a failure leaves no trace.
@AgentActor
final class QEMUReplacement: GuestReplacement {
    nonisolated let stream: Descriptor
    private let old: QEMUGuest
    private let request: GuestRequest
    private let line: ReplacementCommandLine
    private let process: StartedProcess
    private let exit: ExitBox
    private let barrier: BarrierDriver
    private let resources: GuestResources
    private var isOver = false

    private static let streamName = "coldframe-state"
    /// After the last byte of the state, for what QEMU does with it then.
    private static let loadTimeoutNanoseconds: UInt64 = 120_000_000_000
    /// A process that breaks off is soon reported by its keeper.
    private static let exitTimeoutNanoseconds: UInt64 = 3_000_000_000

    /// Starts it. On a throw nothing is left.
    init(of old: QEMUGuest) async throws {
        self.old = old
        let services = old.services
        request = old.request.inSlot(old.request.freeSlot).onNodes(of: old.disks)
        line = ReplacementCommandLine(user: request.command, slot: request.slot)
        exit = ExitBox()
        barrier = BarrierDriver()
        resources = try await GuestResources(request, barrier: barrier, isParked: true, services: services)
        do {
            let command = try QEMUCommandLine(
                user: line.words, name: services.agentName ?? request.id, disks: resources.disks,
                diskServerPath: request.diskServerPath, monitorPath: request.monitorPath, awaitsState: true)
            // Where the first one stands, whatever folder this agent was started in.
            let folder = try Files.linkTarget("/proc/\(old.processID)/cwd")
            process = try await StartedProcess(
                request, command: command.words, workingDirectory: folder, exit: exit, services: services)
        } catch {
            await resources.release()
            line.removeSockets()
            throw error
        }
        do {
            stream = try await Self.openStream(process.monitor)
        } catch {
            await Self.end(process, resources, line)
            throw error
        }
    }

    private static func openStream(_ monitor: QEMUMonitor) async throws -> Descriptor {
        let (reader, writer) = try UnixSocket.pair()
        defer { reader.close() }
        try writer.setNonBlocking(true)
        try await monitor.execute("getfd", ["fdname": .string(streamName)], descriptors: [reader.raw])
        try await monitor.execute("migrate-incoming", ["uri": .string("fd:\(streamName)")])
        return writer
    }

    func loaded() async throws {
        let deadline = SystemClock.monotonicNanoseconds() + Self.loadTimeoutNanoseconds
        while true {
            let status: String
            do {
                status = try await process.monitor.execute("query-migrate")["status"]?.stringValue ?? "none"
            } catch {
                try await throwEnd()
                throw error
            }
            if status == "completed" { return try await checkStandsStill() }
            guard status != "failed", SystemClock.monotonicNanoseconds() < deadline else {
                throw ColdframeError(.peer, "The new process does not load the state (\(status))")
            }
            try await Task.sleep(nanoseconds: 5_000_000)
        }
    }

    private func checkStandsStill() async throws {
        let status = try await process.monitor.execute("query-status")
        guard status["running"]?.boolValue == false, status["status"] != "inmigrate" else {
            throw ColdframeError(
                .peer, "The new process does not stand still with its state (\(status["status"]?.stringValue ?? "?"))")
        }
    }

    /// QEMU ends when a state does not load, and says why in its log.
    private func throwEnd() async throws {
        let deadline = SystemClock.monotonicNanoseconds() + Self.exitTimeoutNanoseconds
        while exit.exit == nil, SystemClock.monotonicNanoseconds() < deadline {
            try await Task.sleep(nanoseconds: 10_000_000)
        }
        if let error = endError { throw error }
    }

    private var endError: ColdframeError? {
        exit.exit.map {
            ColdframeError(
                .peer, "The new process has not taken the state (\($0.description)); its log ends with: \($0.logTail)")
        }
    }

    func passDisks() throws {
        if let error = endError { throw error }
        guard old.exit == nil, !old.isRemoving else { throw ColdframeError(.peer, "Guest '\(old.id)' has ended") }
        try old.resources.passDisks(to: resources)
        old.setRetired(true)
    }

    func takeDisksBack() {
        do {
            try resources.passDisks(to: old.resources)
        } catch {
            old.services.logger.error("guest '\(old.id)' cannot write to its disks any more: \(error)")
        }
        old.setRetired(false)
    }

    func takePlace() -> any Guest {
        isOver = true
        let guest = QEMUGuest(
            request, command: request.command, processID: process.processID, wasTakenOver: false,
            monitor: process.monitor, keeper: process.keeper, barrier: barrier, resources: resources,
            services: old.services)
        exit.hand(to: guest)
        return guest
    }

    func endPredecessor() async throws {
        do {
            try await old.remove(force: false)
        } catch {
            // It has nothing to write to any more.
            await old.resources.release()
            line.moveSockets()
            throw error
        }
        // Its own end has removed the names, now they are free.
        line.moveSockets()
    }

    func abandon() async {
        guard !isOver else { return }
        isOver = true
        stream.close()
        await Self.end(process, resources, line)
    }

    private static func end(
        _ process: StartedProcess, _ resources: GuestResources, _ line: ReplacementCommandLine
    ) async {
        process.monitor.close()
        // One that has ended by itself is as good.
        try? await process.keeper.signal(Signals.kill)
        process.keeper.close()
        await resources.release()
        line.removeSockets()
    }
}

import ColdframeKit
import KeeperWire
import LinuxSystem
import QAPI
import QMPWire

/// A guest that QEMU runs beside the agent, on disks that the agent serves.
@AgentActor
final class QEMUGuest: Guest, StoppedStateSaving {
    let id: String
    var disks: [GuestDisk] { resources.servedDisks }
    let monitor: QEMUMonitor
    private(set) var keeper: KeeperLink
    nonisolated let barrier: BarrierDriver
    let wasTakenOver: Bool
    let request: GuestRequest
    /// QEMU's command line: the user's words, or what the host shows of a guest that was attached.
    let command: [String]
    let resources: GuestResources
    let services: any AgentServices
    let processID: Int32
    /// The capture under way, of which there is at most one.
    private(set) var capture: QEMUCapture?
    private(set) var exit: GuestExit?
    private(set) var isRemoving = false
    /// Another process of the guest takes its place, or has taken it: what becomes of this one is told to nobody.
    private var isRetired = false
    private var exitWaiters: [CheckedContinuation<Void, Never>] = []
    private var cachedCommands: [String]?
    private var cachedSchema: [JSONValue]?
    private var transferCount = 0
    /// A save or load works on it while it stands still.
    private var isHeld = false

    init(
        _ request: GuestRequest, command: [String], processID: Int32, wasTakenOver: Bool, monitor: QEMUMonitor,
        keeper: KeeperLink,
        barrier: BarrierDriver, resources: GuestResources, services: any AgentServices
    ) {
        self.request = request
        self.command = command
        self.processID = processID
        self.wasTakenOver = wasTakenOver
        id = request.id
        self.monitor = monitor
        self.keeper = keeper
        self.barrier = barrier
        self.resources = resources
        self.services = services
        _ = monitor.listen { [weak self] event in self?.receive(event) }
        monitor.onInterrupted { [weak self] in self?.monitorInterrupted() }
        monitor.onClosed { [weak self] in self?.monitorClosed() }
    }

    // MARK: What it says of itself

    /// Whoever looks is not kept waiting by a QEMU that hangs.
    private static let lookTimeoutMilliseconds = 3_000

    func information() async -> GuestInfo {
        let answer = try? await monitor.execute("query-status", timeoutMilliseconds: Self.lookTimeoutMilliseconds)
        let status = exit != nil ? "gone" : answer?["status"]?.stringValue ?? "unresponsive"
        let machine = answer == nil ? nil : try? await machineIdentity()
        return GuestInfo(
            id: id, driver: "qemu", pid: exit == nil ? Int64(processID) : nil, status: status,
            machine: machine?.machineType, version: machine?.vmmVersion, qmpSocket: request.monitorPath,
            disks: disks.map(\.name), nodes: disks.map(\.nodeName), attached: request.isAttached ? true : nil,
            memoryLost: isMemoryLost ? true : nil,
            exitReason: exit?.description)
    }

    func runState() async throws -> GuestRunState {
        if let exit { return .gone(exit.description) }
        let status = try await monitor.execute("query-status")
        guard let name = status["status"]?.stringValue else { return .gone("query-status has no status") }
        return name == "running" ? .running : .stopped(name)
    }

    func machineIdentity() async throws -> MachineIdentity {
        let type = try await monitor.execute("qom-get", ["path": "/machine", "property": "type"]).stringValue ?? ""
        let version = try await monitor.execute("query-version")["qemu"]
        let memory = try await monitor.execute("query-memory-size-summary")
        let suffix = "-machine"
        return MachineIdentity(
            machineType: type.hasSuffix(suffix) ? String(type.dropLast(suffix.count)) : type,
            vmmVersion: ["major", "minor", "micro"].map { "\(version?[$0]?.intValue ?? 0)" }.joined(separator: "."),
            commandLine: command,
            memoryByteCount: (memory["base-memory"]?.uint64Value ?? 0) + (memory["plugged-memory"]?.uint64Value ?? 0))
    }

    func ownCommands() async throws -> [String] {
        if let cachedCommands { return cachedCommands }
        let list = try await monitor.execute("query-commands").arrayValue ?? []
        let names = list.compactMap { $0["name"]?.stringValue }
        cachedCommands = names
        return names
    }

    func ownSchema() async throws -> [JSONValue] {
        if let cachedSchema { return cachedSchema }
        let schema = try await monitor.execute("query-qmp-schema").arrayValue ?? []
        cachedSchema = schema
        return schema
    }

    // MARK: Verbs

    func blockers(for way: CaptureWay) async throws -> [String] {
        guard capture == nil else { return ["A capture of this guest is under way."] }
        return try await Preflight(monitor: monitor, command: command, disks: Set(disks.map(\.name))).blockers(
            for: way)
    }

    func prepareCapture(way: CaptureWay, isCancelled: @escaping @Sendable () -> Bool) async {
        guard way == .live, exit == nil else { return }
        let memory = GuestMemory(processID: processID)
        do {
            let byteCount = try await BlockingPool.shared.run { () throws(SystemError) in
                try memory.gather(isCancelled: isCancelled)
            }
            services.logger.debug("guest '\(id)': \(byteCount >> 20) MiB of RAM are in huge pages")
        } catch {
            services.logger.notice(
                "guest '\(id)': its RAM stays in small pages, and a live save stops it for longer: \(error)")
        }
    }

    func beginCapture(way: CaptureWay) async throws -> any GuestCapture {
        guard capture == nil else {
            throw ColdframeError(.busy, "A capture of guest '\(id)' is under way")
        }
        guard try await runState() == .running else {
            throw ColdframeError(.invalidArgument, "Guest '\(id)' stands still: its state is taken as it stands")
        }
        try await renewKeeper()
        let capture = try QEMUCapture(guest: self, way: way) { [weak self] in
            self?.capture = nil
        }
        self.capture = capture
        do {
            try await capture.begin()
        } catch {
            self.capture = nil
            throw error
        }
        return capture
    }

    nonisolated func clockNanoseconds(inStateTail tail: [UInt8]) -> UInt64? {
        StateClock.nanoseconds(inStateTail: tail)
    }

    /// A keeper that was killed is replaced: without one the guest would freeze with an agent that dies in a capture.
    private func renewKeeper() async throws {
        guard keeper.isClosed else { return }
        keeper = try await SurvivingGuest.startKeeper(request, processID: processID) { [weak self] ended in
            Task { @AgentActor in self?.ended(ended) }
        }
        services.logger.warning("guest '\(id)': its keeper was gone, another one looks after it now")
    }

    func stop() async throws { try await monitor.execute("stop") }
    func cont() async throws { try await monitor.execute("cont") }

    func loadState(imagePath: String, tag: String) async throws {
        try await transfer(.load, imagePath, tag)
        try setMemoryLost(false)
    }

    func interruptedLoad() async throws -> InterruptedLoad { try await StateTransfer.outcome(monitor) }

    /// A guest that is gone has nothing to forget; what a hasty monitor does not take is taken away by the next agent.
    func concludeLoad() async { try? await StateTransfer.clear(monitor) }

    func saveState(imagePath: String, tag: String) async throws {
        do {
            try await transfer(.save, imagePath, tag)
        } catch {
            await concludeLoad()
            throw error
        }
        try await StateTransfer.clear(monitor)
    }

    private func transfer(_ direction: StateTransfer.Direction, _ imagePath: String, _ tag: String) async throws {
        transferCount += 1
        try await StateTransfer(direction: direction, monitor: monitor, number: transferCount).run(
            imagePath: imagePath, tag: tag)
    }

    // MARK: A guest whose memory is of no moment

    private var memoryLossPath: String? {
        (try? services.stateDirectory(for: "qemu")).map { $0 + "/memory-lost" }
    }

    /// Kept in a file beside the guest's process number, so that the next agent knows it too.
    private(set) lazy var isMemoryLost: Bool = {
        guard let memoryLossPath, let bytes = try? Files.readAll(memoryLossPath, limit: 64) else { return false }
        return String(decoding: bytes, as: UTF8.self) == "\(processID)"
    }()

    func setMemoryLost(_ isLost: Bool) throws {
        isMemoryLost = isLost
        guard let memoryLossPath else { return }
        if isLost {
            try Files.replaceAtomically(memoryLossPath, contents: Array("\(processID)".utf8))
        } else {
            try? Files.unlink(memoryLossPath)  // Usually there is none.
        }
    }

    func setHeld(_ isHeld: Bool) { self.isHeld = isHeld }

    /// Commands that would put an end to a capture, or to a guest in the middle of one.
    private static let disturbing: Set<String> = [
        "stop", "cont", "migrate", "migrate_cancel", "migrate-set-capabilities", "migrate-set-parameters",
        "migrate-pause", "migrate-continue", "migrate-incoming", "migrate-recover", "migrate-start-postcopy", "yank",
        "snapshot-save", "snapshot-load", "snapshot-delete", "system_reset",
        "blockdev-del", "device_add", "device_del", "object-add", "object-del", "closefd", "human-monitor-command",
    ]

    func passThrough(_ command: String, arguments: JSONObject?) async throws(QMPError) -> JSONValue {
        if capture != nil || isHeld, Self.disturbing.contains(command) {
            throw QMPError(
                .genericError,
                "The guest is being saved or loaded: '\(command)' has to wait until the job has concluded")
        }
        if isMemoryLost, command == "cont" {
            throw QMPError(
                .genericError,
                "The guest's memory was lost in a load that failed: load a snapshot, or reset it (system_reset)")
        }
        let reply = try await monitor.passThrough(command, arguments)
        if command == "system_reset", isMemoryLost { try? setMemoryLost(false) }
        return reply
    }

    // MARK: Events

    private func receive(_ event: JSONObject) {
        // What is no event is not passed on to clients.
        guard let name = event["event"]?.stringValue else { return }
        capture?.receive(event)
        let isOwn =
            capture != nil && ["MIGRATION", "MIGRATION_PASS"].contains(name)
            || name == "JOB_STATUS_CHANGE"
                && event["data"]?["id"]?.stringValue?.hasPrefix(StateTransfer.jobPrefix) ?? false
        if !isOwn, !isRetired { services.forwardGuestEvent(event) }
    }

    // MARK: The end

    /// A capture has lost events. It is given up as soon as QEMU answers again.
    private func monitorInterrupted() {
        guard !isRemoving else { return }
        capture?.monitorInterrupted()
        services.logger.warning("guest '\(id)': the connection to its monitor has ended")
    }

    /// Usually the guest has ended and the keeper is about to say so. A keeper that is gone says nothing: then the process
    /// itself is looked at. As long as it lives it has its disks.
    private func monitorClosed() {
        guard !isRemoving else { return }
        Task { [weak self] in
            while self?.exit == nil {
                try await Task.sleep(nanoseconds: 1_000_000_000)
                guard let self, exit == nil else { return }
                do {
                    try ProcessControl.signal(processID, 0)
                } catch {
                    ended(GuestExit(description: "its keeper is gone, its exit status is not known", logTail: ""))
                }
            }
        }
    }

    /// The keeper says that the process has ended.
    func ended(_ exit: GuestExit) {
        guard self.exit == nil else { return }
        self.exit = exit
        monitor.close()
        capture?.guestEnded(exit.description)
        let waiters = exitWaiters
        exitWaiters = []
        for waiter in waiters { waiter.resume() }
        reportEnd()
    }

    /// Retired, it stays so for good unless it is called back.
    func setRetired(_ isRetired: Bool) {
        self.isRetired = isRetired
        if !isRetired, exit != nil { reportEnd() }
    }

    private func reportEnd() {
        guard let exit, !isRemoving, !isRetired else { return }
        Task {
            await resources.release()
            keeper.close()
            let tail = exit.logTail.isEmpty ? "" : "; its log ends with: \(exit.logTail)"
            services.guestDied(id: id, reason: exit.description + tail)
        }
    }

    func remove(force: Bool) async throws {
        if request.isAttached { return await detach() }
        isRemoving = true
        if exit == nil, !force { _ = try? await monitor.execute("quit", timeoutMilliseconds: 10_000) }
        if force { await signal(Signals.terminate) }
        if await !waitForExit(milliseconds: 10_000) {
            await signal(Signals.kill)
            guard await waitForExit(milliseconds: 10_000) else {
                isRemoving = false
                throw ColdframeError(.timedOut, "Guest '\(id)' (process \(processID)) does not end")
            }
        }
        await resources.release()
        keeper.close()
    }

    /// Nothing of the agent's is left in it. One that has just ended has nothing to give back.
    private func detach() async {
        isRemoving = true
        if exit == nil {
            _ = try? await monitor.execute(
                "blockdev-del", ["node-name": .string(QEMUCommandLine.barrierNodeName)], timeoutMilliseconds: 10_000)
            await keeper.disown()
        }
        await leave()
    }

    func leave() async {
        isRemoving = true
        monitor.close()
        keeper.close()
        await resources.release()
    }

    /// Through the keeper, whose child it is. Without one, directly while the monitor's connection shows that the process
    /// of that number is still the guest.
    private func signal(_ signal: Int32) async {
        do {
            try await keeper.signal(signal)
        } catch {
            guard exit == nil, !monitor.isClosed else { return }
            try? ProcessControl.signal(processID, signal)  // It may have ended just now.
        }
    }

    private func waitForExit(milliseconds: Int) async -> Bool {
        guard exit == nil else { return true }
        let alarm = Task { [weak self] in
            try await Task.sleep(nanoseconds: UInt64(milliseconds) * 1_000_000)
            self?.wakeExitWaiters()
        }
        defer { alarm.cancel() }
        await withCheckedContinuation { exitWaiters.append($0) }
        return exit != nil
    }

    private func wakeExitWaiters() {
        let waiters = exitWaiters
        exitWaiters = []
        for waiter in waiters { waiter.resume() }
    }
}

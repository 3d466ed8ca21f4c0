import ColdframeKit
import KeeperWire
import LinuxSystem
import QAPI

/// The module that runs QEMU as a guest beside the agent.
public enum QEMUGuestModule {
    public static var module: Module {
        Module(name: "qemu", schema: GeneratedSchema.fragment, guests: [QEMUGuestFactory()])
    }
}

/// `guest-add` with driver `qemu`.
struct QEMUGuestFactory: GuestFactory {
    let driverName = "qemu"
    /// A QEMU that waits for its disks answers once it has found them again, which it tries every 16 s at least.
    private static let answerTimeoutMilliseconds = 60_000

    func survives(_ options: GuestOptions, services: any AgentServices) async throws -> Bool {
        try await SurvivingGuest.exists(
            GuestRequest(options, runtime: services.runtimeDirectory(for: "qemu")))
    }

    func takeOver(_ options: GuestOptions, services: any AgentServices) async throws -> (any Guest)? {
        let request = try GuestRequest(options, runtime: services.runtimeDirectory(for: "qemu"))
        return try await obtain(request, services) { _, _, _ in nil }
    }

    func add(_ options: GuestOptions, services: any AgentServices) async throws -> any Guest {
        let request = try GuestRequest(options, runtime: services.runtimeDirectory(for: "qemu"))
        let guest = try await obtain(request, services) { exit, barrier, resources in
            guard !request.isAttached else {
                throw ColdframeError(
                    .notFound,
                    "Nobody listens at '\(request.monitorPath)': start QEMU with -qmp unix:PATH,server=on,wait=off")
            }
            return try await start(request, exit, barrier, resources, services)
        }
        guard let guest else { throw ColdframeError(.peer, "Guest '\(request.id)' was not started") }
        return guest
    }

    /// The guest that runs already, or what `otherwise` makes.
    @AgentActor
    private func obtain(
        _ request: GuestRequest, _ services: any AgentServices,
        otherwise: @AgentActor (ExitBox, BarrierDriver, GuestResources) async throws -> QEMUGuest?
    ) async throws -> QEMUGuest? {
        let exit = ExitBox()
        // Before anything is served: an earlier guest waits for its disks.
        let survivor = try await SurvivingGuest.find(request) { ended in
            Task { @AgentActor in exit.deliver(ended) }
        }
        do {
            let barrier = BarrierDriver()
            // Before QMP is spoken: a QEMU that waits for its disks does not answer.
            let resources = try await GuestResources(request, barrier: barrier, services: services)
            do {
                let guest =
                    if let survivor {
                        try await takeOver(survivor, request, exit, barrier, resources, services)
                    } else {
                        try await otherwise(exit, barrier, resources)
                    }
                guard let guest else {
                    await resources.release()
                    return nil
                }
                exit.hand(to: guest)
                return guest
            } catch {
                await resources.release()
                throw error
            }
        } catch {
            await survivor?.giveUp(request)
            throw error
        }
    }

    @AgentActor
    private func takeOver(
        _ survivor: SurvivingGuest, _ request: GuestRequest, _ exit: ExitBox, _ barrier: BarrierDriver,
        _ resources: GuestResources, _ services: any AgentServices
    ) async throws -> QEMUGuest {
        let (monitor, command) = try await GuestTakeover.thawing(
            processID: survivor.processID, keeper: survivor.keeper, logger: services.logger
        ) {
            let monitor = try await connect(request.monitorPath, exit)
            do {
                var command = request.command
                if request.isAttached {
                    let attachment = try Attachment(
                        monitor: monitor, resources: resources, processID: survivor.processID, logger: services.logger)
                    try await attachment.check()
                    try await attachment.addBarrier(serverPath: request.diskServerPath)
                    command = attachment.command
                }
                try await GuestTakeover(monitor: monitor, keeper: survivor.keeper).settle()
                return (monitor, command)
            } catch {
                monitor.close()
                throw error
            }
        }
        services.logger.notice("guest '\(request.id)', which runs as process \(survivor.processID), was taken over")
        return QEMUGuest(
            request, command: command, processID: survivor.processID, wasTakenOver: true, monitor: monitor,
            keeper: survivor.keeper,
            barrier: barrier, resources: resources, services: services)
    }

    @AgentActor
    private func start(
        _ request: GuestRequest, _ exit: ExitBox, _ barrier: BarrierDriver, _ resources: GuestResources,
        _ services: any AgentServices
    ) async throws -> QEMUGuest {
        let line = try QEMUCommandLine(
            user: request.command, name: services.agentName ?? request.id, disks: resources.disks,
            diskServerPath: request.diskServerPath, monitorPath: request.monitorPath)
        let keeper = try await KeeperLink.start(
            socketPath: request.keeperPath, errorLogPath: request.keeperLogPath
        ) { ended in
            Task { @AgentActor in exit.deliver(ended) }
        }
        do {
            let logPath = try request.log ?? services.stateDirectory(for: "qemu") + "/guest.log"
            // A monitor socket of an earlier guest would be taken for this one's.
            try? Files.unlink(request.monitorPath)
            let processID = try await keeper.spawn(
                SpawnOrder(
                    command: line.words, logPath: logPath, workingDirectory: try Files.absolutePath("."),
                    identity: request.identity))
            let monitor = try await connect(request.monitorPath, exit)
            return QEMUGuest(
                request, command: request.command, processID: processID, wasTakenOver: false, monitor: monitor,
                keeper: keeper,
                barrier: barrier, resources: resources, services: services)
        } catch {
            // A QEMU that cannot be reached is of no use to anybody.
            try? await keeper.signal(Signals.kill)
            keeper.close()
            throw error
        }
    }

    @AgentActor
    private func connect(_ path: String, _ exit: ExitBox) async throws -> QEMUMonitor {
        try await QEMUMonitor.connect(path: path, timeoutMilliseconds: Self.answerTimeoutMilliseconds) {
            exit.exit.map {
                ColdframeError(.peer, "QEMU ended at once (\($0.description)): \($0.logTail)")
            }
        }
    }
}

/// Takes the keeper's word that the guest has ended, before there is a guest object to tell.
@AgentActor
private final class ExitBox {
    private(set) var exit: GuestExit?
    private weak var guest: QEMUGuest?

    nonisolated init() {}

    func deliver(_ exit: GuestExit) {
        self.exit = exit
        guest?.ended(exit)
    }

    func hand(to guest: QEMUGuest) {
        self.guest = guest
        if let exit { guest.ended(exit) }
    }
}

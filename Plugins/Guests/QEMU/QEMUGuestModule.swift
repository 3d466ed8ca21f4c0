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
        let request = survivor?.request ?? request
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
            await survivor?.giveUp()
            // A process that is being killed still answers for a while: it is gone now, and nothing is to be taken over.
            guard let survivor, await survivor.hasEnded() else { throw error }
            return try await obtain(request, services, otherwise: otherwise)
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
            let monitor = try await QEMUMonitor.connect(request, exit)
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
        let process = try await StartedProcess(
            request, command: line.words, workingDirectory: try Files.absolutePath("."), exit: exit,
            services: services)
        return QEMUGuest(
            request, command: request.command, processID: process.processID, wasTakenOver: false,
            monitor: process.monitor, keeper: process.keeper, barrier: barrier, resources: resources,
            services: services)
    }

    func settleReplacement(
        _ options: GuestOptions, slot: Int, isCommitted: Bool, services: any AgentServices
    ) async throws {
        let new = try GuestRequest(options, runtime: services.runtimeDirectory(for: "qemu")).inSlot(slot)
        try await SurvivingGuest.end(isCommitted ? new.inSlot(new.freeSlot) : new)
        let line = ReplacementCommandLine(user: new.command, slot: slot)
        if isCommitted { line.moveSockets() } else { line.removeSockets() }
    }
}

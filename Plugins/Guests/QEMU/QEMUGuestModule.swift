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
    private static let startTimeoutMilliseconds = 60_000

    func add(_ options: GuestOptions, services: any AgentServices) async throws -> any Guest {
        guard let own = options.branch as? GuestOptionsQemu else {
            throw ColdframeError(.invalidArgument, "Options of guest driver '\(options.driver)' are not of QEMU")
        }
        guard own.attach == nil else {
            throw ColdframeError(
                .unsupported, "Attaching to a QEMU that runs already is not supported yet: give its 'command'")
        }
        guard let command = own.command else {
            throw ColdframeError(.invalidArgument, "Parameter 'command' is missing")
        }
        let id = options.id ?? "guest0"
        let runtime = try services.runtimeDirectory(for: "qemu")
        // Early, so that nothing has to be undone.
        for socket in ["/guest.qmp", "/disks.sock", "/keeper.sock"] {
            do {
                try UnixSocket.checkPath(runtime + socket)
            } catch {
                throw ColdframeError(.invalidArgument, error.description)
            }
        }
        try await KeeperLink.awaitPredecessor(socketPath: runtime + "/keeper.sock")
        let barrier = BarrierDriver()
        let resources = try await GuestResources(
            guestID: id, diskNodeNames: own.disks ?? [], barrier: barrier, runtimeDirectory: runtime,
            services: services)
        do {
            let line = try QEMUCommandLine(
                user: command, name: services.agentName ?? id, disks: resources.disks,
                diskServerPath: resources.diskServerPath,
                monitorPath: resources.monitorPath)
            return try await start(
                id: id, command: command, line: line, log: own.log, runtime: runtime, barrier: barrier,
                resources: resources, services: services)
        } catch {
            await resources.release()
            throw error
        }
    }

    @AgentActor
    private func start(
        id: String, command: [String], line: QEMUCommandLine, log: String?, runtime: String, barrier: BarrierDriver,
        resources: GuestResources, services: any AgentServices
    ) async throws -> QEMUGuest {
        let exit = ExitBox()
        let keeper = try await KeeperLink.start(
            socketPath: runtime + "/keeper.sock", errorLogPath: runtime + "/keeper.log"
        ) { ended in
            Task { @AgentActor in exit.deliver(ended) }
        }
        do {
            let logPath = try log ?? services.stateDirectory(for: "qemu") + "/guest.log"
            // A monitor socket of an earlier guest would be taken for this one's.
            try? Files.unlink(resources.monitorPath)
            let processID = try await keeper.spawn(
                SpawnOrder(command: line.words, logPath: logPath, workingDirectory: try Files.absolutePath(".")))
            let monitor = try await QEMUMonitor.connect(
                path: resources.monitorPath, timeoutMilliseconds: Self.startTimeoutMilliseconds
            ) {
                exit.exit.map {
                    ColdframeError(.peer, "QEMU ended at once (\($0.description)): \($0.logTail)")
                }
            }
            let guest = QEMUGuest(
                id: id, command: command, processID: processID, monitor: monitor, keeper: keeper, barrier: barrier,
                resources: resources, services: services)
            exit.hand(to: guest)
            return guest
        } catch {
            // A QEMU that cannot be reached is of no use to anybody.
            try? await keeper.signal(Signals.kill)
            keeper.close()
            throw error
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

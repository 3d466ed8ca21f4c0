import ColdframeKit
import KeeperWire
import LinuxSystem

/// A QEMU that was started below a keeper of its own and answers.
@AgentActor
struct StartedProcess {
    let keeper: KeeperLink
    let processID: Int32
    let monitor: QEMUMonitor

    /// On a throw no process is left.
    init(
        _ request: GuestRequest, command: [String], workingDirectory: String, exit: ExitBox,
        services: any AgentServices
    ) async throws {
        keeper = try await KeeperLink.start(
            socketPath: request.keeperPath, errorLogPath: request.keeperLogPath
        ) { ended in
            Task { @AgentActor in exit.deliver(ended) }
        }
        do {
            let logPath = try request.log ?? services.stateDirectory(for: "qemu") + "/guest.log"
            // A monitor socket of an earlier process would be taken for this one's.
            try? Files.unlink(request.monitorPath)
            processID = try await keeper.spawn(
                SpawnOrder(
                    command: command, logPath: logPath, workingDirectory: workingDirectory,
                    identity: request.identity))
            monitor = try await QEMUMonitor.connect(request, exit)
        } catch {
            // A QEMU that cannot be reached is of no use to anybody.
            try? await keeper.signal(Signals.kill)
            keeper.close()
            throw error
        }
    }
}

extension QEMUMonitor {
    /// A QEMU that waits for its disks answers once it has found them again, which it tries every 16 s at least.
    private static let answerTimeoutMilliseconds = 60_000

    /// Of a process whose end is told to `exit`.
    static func connect(_ request: GuestRequest, _ exit: ExitBox) async throws -> QEMUMonitor {
        try await connect(path: request.monitorPath, timeoutMilliseconds: answerTimeoutMilliseconds) {
            exit.exit.map {
                ColdframeError(.peer, "QEMU ended at once (\($0.description)): \($0.logTail)")
            }
        }
    }
}

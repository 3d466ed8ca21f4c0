import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// What `guest-add` asks for, checked as far as it can be without doing any of it.
struct GuestRequest: Sendable {
    let id: String
    let disks: [String]
    let log: String?
    /// The user's words for a guest that we start.
    let command: [String]
    let runtime: String

    var monitorPath: String { runtime + "/guest.qmp" }
    var keeperPath: String { runtime + "/keeper.sock" }
    var keeperLogPath: String { runtime + "/keeper.log" }
    var diskServerPath: String { runtime + "/disks.sock" }

    init(_ options: GuestOptions, runtime: String) throws {
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
        id = options.id ?? "guest0"
        disks = own.disks ?? []
        log = own.log
        self.command = command
        self.runtime = runtime
        for path in [monitorPath, keeperPath, diskServerPath] {
            do {
                try UnixSocket.checkPath(path)
            } catch {
                throw ColdframeError(.invalidArgument, error.description)
            }
        }
    }

    /// By which a keeper tells the next agent whose guest it has.
    var identity: String {
        JSONWriter.string([
            "id": .string(id), "command": .array(command.map { .string($0) }),
            "disks": .array(disks.map { .string($0) }),
        ])
    }
}

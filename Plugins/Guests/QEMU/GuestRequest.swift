import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// What `guest-add` asks for, checked as far as it can be without doing any of it.
struct GuestRequest: Sendable {
    let id: String
    let disks: [String]
    let log: String?
    /// The user's words for a guest that we start; empty for one that is attached.
    let command: [String]
    /// The monitor of a QEMU that somebody else has started.
    let attachedMonitor: String?
    let runtime: String

    var isAttached: Bool { attachedMonitor != nil }
    var monitorPath: String { attachedMonitor ?? runtime + "/guest.qmp" }
    var keeperPath: String { runtime + "/keeper.sock" }
    var keeperLogPath: String { runtime + "/keeper.log" }
    var diskServerPath: String { runtime + "/disks.sock" }

    init(_ options: GuestOptions, runtime: String) throws {
        guard let own = options.branch as? GuestOptionsQemu else {
            throw ColdframeError(.invalidArgument, "Options of guest driver '\(options.driver)' are not of QEMU")
        }
        switch (own.command, own.attach) {
        case (let command?, nil):
            self.command = command
            attachedMonitor = nil
        case (nil, let path?):
            command = []
            attachedMonitor = path
        case (nil, nil):
            throw ColdframeError(.invalidArgument, "Parameter 'command' is missing")
        default:
            throw ColdframeError(
                .invalidArgument, "Parameters 'command' and 'attach' exclude each other: a guest is started or attached"
            )
        }
        id = options.id ?? "guest0"
        disks = own.disks ?? []
        log = own.log
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
            "attach": .string(attachedMonitor ?? ""), "disks": .array(disks.map { .string($0) }),
        ])
    }
}

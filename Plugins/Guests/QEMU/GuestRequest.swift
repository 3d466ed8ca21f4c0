import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// What `guest-add` asks for, checked as far as it can be without doing any of it.
struct GuestRequest: Sendable {
    let id: String
    /// With the nodes that serve them, as asked for, or as they are when another process takes this one's place.
    private(set) var disks: [GuestDisk]
    let log: String?
    /// The user's words for a guest that we start; empty for one that is attached.
    let command: [String]
    /// The monitor of a QEMU that somebody else has started.
    let attachedMonitor: String?
    let runtime: String
    /// Which of the guest's two processes this is about: each has sockets of its own. A guest starts in slot 0, and changes the
    /// slot with every load by replacement.
    private(set) var slot = 0

    var isAttached: Bool { attachedMonitor != nil }
    var monitorPath: String { attachedMonitor ?? path("guest", ".qmp") }
    var keeperPath: String { path("keeper", ".sock") }
    var keeperLogPath: String { path("keeper", ".log") }
    var diskServerPath: String { path("disks", ".sock") }

    private func path(_ name: String, _ suffix: String) -> String {
        "\(runtime)/\(name)\(slot == 0 ? "" : "-\(slot)")\(suffix)"
    }

    func inSlot(_ slot: Int) -> GuestRequest {
        var request = self
        request.slot = slot
        return request
    }

    func onNodes(of disks: [GuestDisk]) -> GuestRequest {
        var request = self
        request.disks = disks
        return request
    }

    var freeSlot: Int { 1 - slot }
    /// The same guest in each place where it may be.
    var slots: [GuestRequest] { isAttached ? [self] : [inSlot(0), inSlot(1)] }

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
        disks = (own.disks ?? []).map { disk in
            switch disk {
            case .node(let name): GuestDisk(name: name, nodeName: name)
            case .disk(let disk): disk
            }
        }
        var names: Set<String> = []
        for disk in disks where !names.insert(disk.name).inserted {
            throw ColdframeError(.invalidArgument, "Disk '\(disk.name)' is given twice")
        }
        log = own.log
        self.runtime = runtime
        for path in slots.flatMap({ [$0.monitorPath, $0.keeperPath, $0.diskServerPath] }) {
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
            "attach": .string(attachedMonitor ?? ""), "disks": .array(disks.map { .string($0.name) }),
        ])
    }
}

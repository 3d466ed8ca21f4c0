import ColdframeKit
import LinuxSystem

/// The user's command line for a second process that stands beside the first for a while.
///
/// What only one of two processes can have either gets another name until the first has ended, as sockets to listen at do,
/// or is named here: QEMU itself would take it from the first process without a word (a socket), cut it to nothing (a file),
/// share it (memory), or not start.
struct ReplacementCommandLine: Sendable {
    /// With sockets under their passing names.
    private(set) var words: [String] = []
    /// What speaks against a second process, one sentence each.
    private(set) var blockers: [String] = []
    /// Where the guest's memory lies in files: each process makes its own, of huge pages perhaps.
    private(set) var memoryPaths: [String] = []
    /// The guest's memory is asked for in huge pages.
    private(set) var takesHugePages = false
    private var moves: [SocketMove] = []

    /// A socket that listens under a name for the time being.
    private struct SocketMove {
        let name: String
        let passingName: String
    }

    /// Another one than the first process may have come in by: it removes that at its end.
    private let passingSuffix: String

    /// - Parameter slot: of the second process.
    init(user: [String], slot: Int) {
        passingSuffix = ".\(slot)"
        var index = 0
        while index < user.count {
            let word = user[index]
            words.append(word)
            index += 1
            guard let option = Self.option(word) else { continue }
            if option == "mem-path", index < user.count { memoryPaths.append(user[index]) }
            if let advice = Self.unfit[option] {
                blockers.append("'-\(option)' \(advice)")
            } else if index < user.count, let kind = Self.kinds[option] {
                words.append(look(kind, option, user[index]))
                index += 1
            }
        }
    }

    /// The old process has ended: its names are free. What has been moved before is left.
    func moveSockets() {
        for move in moves where Files.exists(move.passingName) {
            // Whoever looks for it there has to be told, but the guest is none the worse.
            try? Files.rename(from: move.passingName, to: move.name)
        }
    }

    /// The new process has ended without having been let go on.
    func removeSockets() {
        for move in moves where Files.exists(move.passingName) { try? Files.unlink(move.passingName) }
    }

    private static func option(_ word: String) -> String? {
        guard word.hasPrefix("-") else { return nil }
        return String(word.dropFirst(word.hasPrefix("--") ? 2 : 1))
    }

    // MARK: What is looked at

    private enum Kind { case chardev, oldChardev, netdev, device, object, display }

    private static let kinds: [String: Kind] = [
        "chardev": .chardev, "serial": .oldChardev, "parallel": .oldChardev, "monitor": .oldChardev,
        "qmp": .oldChardev, "qmp-pretty": .oldChardev, "debugcon": .oldChardev, "gdb": .oldChardev, "netdev": .netdev,
        "nic": .netdev, "net": .netdev, "device": .device, "object": .object, "vnc": .display, "spice": .display,
        "display": .display,
    ]

    private static let unfit: [String: String] = [
        "s": "listens at a port that the first process has: leave it out.",
        "pidfile": "names a file that the first process has locked: leave it out.",
        "D": "names a file that a second process would cut to nothing: leave it out.",
        "trace": "may name a file that a second process would cut to nothing: leave it out.",
        "readconfig": "hides what is in the file from the agent: put its content into the command.",
        "add-fd": "names a descriptor that the first process has: give a path.",
        "tpmdev": "is connected to the state of one TPM, which two processes cannot share: leave it out.",
        "audiodev": "may name a device or file of the first process: leave it out.",
    ]

    /// Notes what is wrong with a value, and returns it as the second process gets it.
    private mutating func look(_ kind: Kind, _ option: String, _ value: String) -> String {
        switch kind {
        case .chardev: return lookAtChardev(value)
        case .oldChardev: return lookAtOldChardev(option, value)
        case .netdev: lookAtNet(option, OptionValue(value, impliedKey: "type"))
        case .device: lookAtDevice(OptionValue(value, impliedKey: "driver"))
        case .object: lookAtObject(OptionValue(value, impliedKey: "qom-type"))
        case .display:
            if value != "none", option != "display" || value.hasPrefix("vnc") || value.hasPrefix("spice") {
                blockers.append("'-\(option) \(value)' listens where the first process does: leave it out.")
            }
        }
        return value
    }

    // MARK: Character devices

    private mutating func lookAtChardev(_ value: String) -> String {
        let options = OptionValue(value, impliedKey: "backend")
        let backend = options["backend"] ?? ""
        let name = "chardev '\(options["id"] ?? backend)'"
        if options["logfile"] != nil, !options.isOn("logappend") {
            blockers.append("The log of \(name) would be cut to nothing: add logappend=on.")
        }
        switch backend {
        case "null", "pty", "vc", "ringbuf", "memory", "msmouse", "testdev", "stdio", "mux": return value
        case "file":
            if !options.isOn("append") {
                blockers.append("The file of \(name) would be cut to nothing: add append=on.")
            }
            return value
        case "socket": return lookAtSocket(name, options, value)
        default:
            blockers.append("The \(name) of type '\(backend)' cannot be had twice: leave it out.")
            return value
        }
    }

    private mutating func lookAtSocket(_ name: String, _ options: OptionValue, _ value: String) -> String {
        guard options.isOn("server") else {
            blockers.append(
                "The \(name) is a client's connection, which the first process has: let QEMU be the server.")
            return value
        }
        guard let path = options["path"], !options.isOn("abstract"), options["fd"] == nil else {
            blockers.append("The \(name) listens at a port that the first process has: use a socket with a path.")
            return value
        }
        guard let passing = move(path, name) else { return value }
        // The last word of a kind counts. Nobody is waited for: the clients are the first process's.
        return value + ",path=\(OptionValue.escaped(passing)),wait=off"
    }

    /// `unix:PATH,server=on`, `file:PATH`, `chardev:ID`, …, as `-serial` and its like take it.
    private mutating func lookAtOldChardev(_ option: String, _ value: String) -> String {
        let form = value.hasPrefix("mon:") ? String(value.dropFirst(4)) : value
        let word = form.prefix { $0 != ":" && $0 != "," }
        switch word {
        case "none", "null", "pty", "vc", "stdio", "chardev", "msmouse": return value
        case "unix":
            let options = OptionValue(String(form.dropFirst(5)), impliedKey: "path")
            guard options.isOn("server"), let path = options["path"] else { break }
            guard let passing = move(path, "'-\(option) \(value)'") else { return value }
            let prefix = value.hasPrefix("mon:") ? "mon:" : ""
            return "\(prefix)unix:\(OptionValue.escaped(passing)),server=on,wait=off"
        case "file":
            blockers.append(
                "The file of '-\(option) \(value)' would be cut to nothing: use a -chardev with append=on.")
            return value
        default: break
        }
        blockers.append(
            "'-\(option) \(value)' is something that the first process has: use a unix socket at which QEMU listens.")
        return value
    }

    private mutating func move(_ path: String, _ name: String) -> String? {
        guard path.hasPrefix("/") else {
            blockers.append("The path of \(name) is not absolute: give it from the root on.")
            return nil
        }
        let move = SocketMove(name: path, passingName: path + passingSuffix)
        do {
            try UnixSocket.checkPath(move.passingName)
        } catch {
            blockers.append(
                "The path of \(name) is too long for another one beside it: shorten it by \(passingSuffix.count).")
            return nil
        }
        moves.append(move)
        return move.passingName
    }

    // MARK: Devices of the host

    private mutating func lookAtNet(_ option: String, _ options: OptionValue) {
        let type = options["type"] ?? ""
        let name = "'-\(option) \(type)'"
        let taken = ["hostfwd", "ifname", "fd", "fds", "vhostfd", "vhostfds", "listen", "localaddr"].filter {
            options[$0] != nil
        }
        switch type {
        case "none", "hubport", "bridge", "user", "tap", "nic":
            for member in taken {
                blockers.append(
                    "\(name) has '\(member)', which the first process has: "
                        + (member == "hostfwd"
                            ? "forward the port by other means." : "let each process make its own interface."))
            }
        default:
            blockers.append("\(name) is an end of a connection that the first process has: use 'tap' or 'bridge'.")
        }
    }

    private mutating func lookAtDevice(_ options: OptionValue) {
        let driver = options["driver"] ?? ""
        let kinds = [
            "vfio-", "vhost-", "usb-host", "usb-redir", "ivshmem", "scsi-generic", "scsi-block", "virtio-input-host",
        ]
        if kinds.contains(where: driver.hasPrefix) {
            blockers.append("Device '\(driver)' is the host's, which the first process has: take it out.")
        }
    }

    private mutating func lookAtObject(_ options: OptionValue) {
        let type = options["qom-type"] ?? ""
        let name = "object '\(options["id"] ?? type)'"
        switch type {
        case "memory-backend-file" where options.isOn("share"):
            blockers.append("The memory of \(name) would be that of both processes: say share=off.")
        case "memory-backend-file":
            if let path = options["mem-path"] { memoryPaths.append(path) }
        case "memory-backend-memfd" where options.isOn("hugetlb"): takesHugePages = true
        case "filter-dump":
            blockers.append("The file of \(name) would be cut to nothing: take it out.")
        case "input-linux", "rng-egd", "filter-mirror", "filter-redirector", "pr-manager-helper", "x-remote-object",
            "vfio-user-server", "vhost-user-backend", "cryptodev-vhost-user":
            blockers.append("The \(name) of type '\(type)' cannot be had twice: take it out.")
        default: break
        }
    }
}

import ColdframeKit
import LinuxSystem
import Logging
import QMPWire

/// A QEMU that somebody else has started on exports of this agent: whether it is fit to be a guest, and the barrier.
@AgentActor
struct Attachment {
    let monitor: QEMUMonitor
    let resources: GuestResources
    let logger: Logger
    /// Its command line, as the host shows it.
    let command: [String]

    init(monitor: QEMUMonitor, resources: GuestResources, processID: Int32, logger: Logger) throws {
        self.monitor = monitor
        self.resources = resources
        self.logger = logger
        do {
            command = try Files.readAll("/proc/\(processID)/cmdline", limit: 4 << 20).split(separator: 0).map {
                String(decoding: $0, as: UTF8.self)
            }
        } catch {
            throw ColdframeError(error, "The command line of process \(processID) cannot be read")
        }
    }

    /// Throws with everything that is wrong, all at once.
    func check() async throws {
        let list = try await monitor.execute("query-named-block-nodes", ["flat": true]).arrayValue ?? []
        var problems: [String] = []
        for disk in resources.disks {
            let name = disk.name
            guard let node = list.first(where: { $0["node-name"]?.stringValue == name }) else {
                problems.append("QEMU has no node '\(name)'")
                continue
            }
            let place = node["image"]?["filename"]?.stringValue ?? "?"
            let uris = resources.exportURIs[name] ?? []
            if uris.isEmpty {
                problems.append("node '\(name)' has no writable NBD export on a unix socket")
            } else if !uris.contains(place) {
                problems.append("QEMU's node '\(name)' is '\(place)', not this agent's '\(uris[0])'")
            } else {
                problems += reconnectProblem(name)
            }
        }
        guard problems.isEmpty else {
            throw ColdframeError(
                .invalidArgument,
                "QEMU cannot be attached: \(problems.joined(separator: "; ")). 'coldframe attach NAME' prints the "
                    + "-blockdev that each disk needs")
        }
    }

    /// QMP does not tell the reconnect delay; the command line does, where the node is from there.
    private func reconnectProblem(_ name: String) -> [String] {
        for (option, value) in zip(command, command.dropFirst()) where ["-blockdev", "--blockdev"].contains(option) {
            var members: [String: String] = [:]
            if let object = (try? JSONParser.parse(value))?.objectValue {
                for (key, member) in object { members[key] = member.stringValue ?? member.uint64Value.map { "\($0)" } }
            } else {
                for part in value.split(separator: ",") {
                    let pieces = part.split(separator: "=", maxSplits: 1).map(String.init)
                    if pieces.count == 2 { members[pieces[0]] = pieces[1] }
                }
            }
            guard members["node-name"] == name else { continue }
            if let seconds = members["reconnect-delay"].flatMap(UInt64.init), seconds > 0 { return [] }
            return [
                "QEMU's node '\(name)' has no reconnect-delay, so that a restart of the agent is an I/O error to the guest"
            ]
        }
        logger.warning(
            "it is not known whether QEMU's node '\(name)' has a reconnect-delay: without one a restart of the agent is an I/O error to the guest"
        )
        return []
    }

    /// A guest that was attached before has it already.
    func addBarrier(serverPath: String) async throws {
        let list = try await monitor.execute("query-named-block-nodes", ["flat": true]).arrayValue ?? []
        guard !list.contains(where: { $0["node-name"]?.stringValue == QEMUCommandLine.barrierNodeName }) else { return }
        try await monitor.execute("blockdev-add", QEMUCommandLine.barrier(socket: serverPath))
    }
}

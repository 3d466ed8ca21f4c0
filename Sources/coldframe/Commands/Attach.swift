import ArgumentParser
import LinuxSystem
import QMPWire

/// `coldframe attach NAME [SOCKET]`
struct Attach: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a QEMU that runs already the guest of an agent.",
        discussion: """
            QEMU's disks must be NBD nodes on the agent's writable exports. Without SOCKET this prints the -blockdev \
            options with which to start QEMU.
            """)

    @Argument(help: "Name of the agent.")
    var name: String
    @Argument(help: "QMP socket of QEMU, which no other client may use meanwhile.")
    var socket: String?
    @Option(name: .customLong("disk"), help: "A disk of the guest, once for each (default: all writable exports).")
    var disks: [String] = []

    func run() throws {
        let session = try Session(agent: name)
        let exports = try session.execute("query-block-exports").arrayValue ?? []
        let nodes = try session.execute("query-named-block-nodes").arrayValue ?? []
        let found = exports.compactMap { export -> (node: String, uri: String)? in
            guard let node = export["node-name"]?.stringValue, let uri = export["uri"]?.stringValue else { return nil }
            guard disks.isEmpty || disks.contains(node) else { return nil }
            return (node, uri)
        }
        guard !found.isEmpty else {
            throw CommandFailure(
                "Agent '\(name)' has no NBD export on a unix socket: add nbd-server and a writable export for each disk"
            )
        }
        guard let socket else {
            for (node, uri) in found {
                let isReadOnly = nodes.first { $0["node-name"]?.stringValue == node }?["ro"]?.boolValue ?? false
                Terminal.write("-blockdev '\(Self.option(node, uri, isReadOnly: isReadOnly))'\n")
            }
            return
        }
        var names: [String] = []
        for (node, _) in found where !names.contains(node) { names.append(node) }
        _ = try session.execute(
            "guest-add",
            [
                "driver": "qemu", "attach": .string(try Files.absolutePath(socket)),
                "disks": .array((disks.isEmpty ? names : disks).map { .string($0) }),
            ])
        Terminal.write("Attached \(name) to \(socket)\n")
    }

    /// `nbd+unix:///EXPORT?socket=PATH` as QEMU's option.
    private static func option(_ node: String, _ uri: String, isReadOnly: Bool) -> String {
        let rest = uri.dropFirst("nbd+unix:///".count)
        let parts = rest.split(separator: "?", maxSplits: 1).map(String.init)
        let path = parts.count > 1 ? String(parts[1].dropFirst("socket=".count)) : ""
        return JSONWriter.string([
            "driver": "nbd", "node-name": .string(node), "server": ["type": "unix", "path": .string(path)],
            "export": .string(parts.first ?? ""), "reconnect-delay": 300, "read-only": .bool(isReadOnly),
            "discard": "unmap",
        ])
    }
}

/// `coldframe detach NAME`
struct Detach: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Let go of a guest that was attached; it runs on.")

    @Argument(help: "Name of the agent.")
    var name: String

    func run() throws {
        let session = try Session(agent: name)
        guard try session.execute("query-guest")["attached"]?.boolValue == true else {
            throw CommandFailure(
                "The guest of '\(name)' was started by its agent: 'coldframe qmp \(name) guest-del' ends it")
        }
        _ = try session.execute("guest-del")
        Terminal.write("Detached \(name)\n")
    }
}

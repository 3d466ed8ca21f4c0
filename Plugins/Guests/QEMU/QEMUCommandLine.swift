import ColdframeKit
import QMPWire

/// The command line of a guest: the user's words, and what the agent adds.
struct QEMUCommandLine: Sendable {
    static let barrierNodeName = "coldframe-barrier"
    /// Seconds for which QEMU waits for an agent that is being restarted before the guest sees an error.
    private static let diskReconnectSeconds = 300
    /// A barrier whose server is gone must let the guest go soon.
    private static let barrierReconnectSeconds = 1

    let words: [String]

    struct Disk {
        /// Of QEMU's node, and of the export.
        let name: String
        let isReadOnly: Bool
    }

    /// - Parameters:
    ///   - user: the command as given.
    ///   - name: the guest's if the command gives none.
    ///   - diskServerPath: like `monitorPath` a socket in the runtime folder.
    ///   - awaitsState: it starts without a state and waits for one.
    init(
        user: [String], name: String, disks: [Disk], diskServerPath: String, monitorPath: String,
        awaitsState: Bool = false
    ) throws(ColdframeError) {
        guard let program = user.first, !program.isEmpty else {
            throw ColdframeError(.invalidArgument, "Parameter 'command' must name a program and its arguments")
        }
        try Self.check(user, disks)
        var words = user
        if !user.contains(where: { ["-name", "--name"].contains($0) }) { words += ["-name", name] }
        words += [
            "-chardev", "socket,id=coldframe-qmp,path=\(OptionValue.escaped(monitorPath)),server=on,wait=off",
            "-mon", "chardev=coldframe-qmp,mode=control",
        ]
        for disk in disks {
            words += [
                "-blockdev",
                Self.node(
                    disk.name, socket: diskServerPath, reconnectSeconds: Self.diskReconnectSeconds,
                    isReadOnly: disk.isReadOnly),
            ]
        }
        words += [
            "-blockdev",
            JSONWriter.string(.object(Self.barrier(socket: diskServerPath))),
        ]
        if awaitsState { words += ["-S", "-incoming", "defer"] }
        self.words = words
    }

    /// What the user may not say because the agent says it.
    private static func check(_ user: [String], _ disks: [Disk]) throws(ColdframeError) {
        for (option, advice) in refusals where user.contains(where: { $0 == option || $0 == "-" + option }) {
            throw ColdframeError(.invalidArgument, "'\(option)' cannot be used: \(advice)")
        }
        if zip(user, user.dropFirst()).contains(where: {
            $0.0.hasSuffix("-chardev") && $0.1.contains("id=coldframe-qmp")
        }) {
            throw ColdframeError(.invalidArgument, "The chardev 'coldframe-qmp' is the agent's: give yours another id")
        }
        let names = disks.map(\.name) + [barrierNodeName]
        for (option, value) in zip(user, user.dropFirst()) where ["-blockdev", "--blockdev"].contains(option) {
            for name in names
            where value.contains("node-name=\(name),") || value.hasSuffix("node-name=\(name)")
                || value.contains("\"node-name\":\"\(name)\"") || value.contains("\"node-name\": \"\(name)\"")
            {
                throw ColdframeError(
                    .invalidArgument, "The command has a -blockdev '\(name)': the agent adds the one for that disk")
            }
        }
    }

    private static let refusals = [
        ("-daemonize", "the keeper is the guest's parent, leave the word out"),
        ("-incoming", "a state is loaded into a guest that runs, with snapshot-load"),
        ("-loadvm", "a state is loaded into a guest that runs, with snapshot-load"),
    ]

    /// The barrier as `-blockdev` and `blockdev-add` take it.
    static func barrier(socket: String) -> JSONObject {
        nodeOptions(barrierNodeName, socket: socket, reconnectSeconds: barrierReconnectSeconds, isReadOnly: false)
    }

    private static func node(
        _ name: String, socket: String, reconnectSeconds: Int, isReadOnly: Bool
    ) -> String {
        JSONWriter.string(
            .object(nodeOptions(name, socket: socket, reconnectSeconds: reconnectSeconds, isReadOnly: isReadOnly)))
    }

    private static func nodeOptions(
        _ name: String, socket: String, reconnectSeconds: Int, isReadOnly: Bool
    ) -> JSONObject {
        [
            "driver": "nbd", "node-name": .string(name), "server": ["type": "unix", "path": .string(socket)],
            "export": .string(name), "reconnect-delay": .integer(Int64(reconnectSeconds)),
            "read-only": .bool(isReadOnly), "discard": "unmap",
        ]
    }
}

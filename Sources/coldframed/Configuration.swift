import AgentCore
import CToml
import LinuxSystem
import QAPI
import QMPWire

/// A configuration file in TOML with QAPI's names.
///
/// Whatever the order of its sections, what they ask for is done in this one: object, blockdev, nbd-server, export,
/// guest, snapshot-export, chardev, monitor. So every section finds what it names, and clients come last.
struct Configuration {
    var name: String?
    var pidFile: String?
    /// `allow-backing`: folders into which backing files that images name are followed.
    var allowedBackingFolders: [String] = []
    /// `guest-at-exit`: what becomes of the guest at a signal.
    var guestAtExit: GuestAtExit?
    var steps: [StartupStep] = []

    private static let byteCountLimit = 1 << 20

    /// Reads and checks the file.
    static func read(path: String) throws(StartupError) -> Configuration {
        let text: [UInt8]
        do {
            text = try Files.readAll(path, limit: byteCountLimit)
        } catch {
            throw StartupError("Could not read the configuration '\(path)': \(error.reason)")
        }
        return try parse(text, file: path)
    }

    /// Parses the text of `file`; errors begin with `file:line`.
    static func parse(_ text: [UInt8], file: String) throws(StartupError) -> Configuration {
        let document = try TOMLDocument(text, file: file)
        var configuration = Configuration()
        for (key, value) in document.root { try document.checkTopLevel(key, value) }
        configuration.name = try document.string("name")
        if let name = configuration.name, !AgentName.isValid(name) {
            throw StartupError(document.location(of: "name"), AgentName.rule)
        }
        configuration.pidFile = try document.string("pidfile")
        configuration.allowedBackingFolders = try document.strings("allow-backing")
        if let word = try document.string("guest-at-exit") {
            do {
                configuration.guestAtExit = try GuestAtExit(QAPIInput(.string(word)))
            } catch {
                throw StartupError(document.location(of: "guest-at-exit"), "\(error)")
            }
        }
        for section in TOMLDocument.Section.inOrder {
            for (way, value) in document.entries(of: section) {
                do {
                    for action in try actions(for: section, value, way: way) {
                        configuration.steps.append(StartupStep(location: document.location(of: way), action: action))
                    }
                } catch {
                    throw StartupError(document.location(of: way, error: error), error.description)
                }
            }
        }
        return configuration
    }

    private static func actions(
        for section: TOMLDocument.Section, _ value: JSONValue, way: String
    ) throws(QMPError) -> [StartupAction] {
        let input = QAPIInput(value)
        switch section {
        case .object: return [.addObject(try ObjectOptions(input))]
        case .blockdev: return [.addBlockdev(try BlockdevOptions(input))]
        case .nbdServer: return [.startNBDServer(try NBDServerArguments.decode(input))]
        case .export: return [.addExport(try BlockExportOptions(input))]
        case .guest: return [.addGuest(try GuestOptions(input))]
        case .snapshotExport: return [.addSnapshotExport(try SnapshotExportOptions(input))]
        case .monitor: return try monitor(input, way: way)
        }
    }

    /// A monitor of a configuration brings its socket along: `path` of a unix socket, or `host` and `port` of TCP on
    /// loopback. It listens and does not wait for a client.
    private static func monitor(_ input: QAPIInput, way: String) throws(QMPError) -> [StartupAction] {
        var members = try QAPIObjectInput(input)
        let id: String? = try members.optional("id")
        let path: String? = try members.optional("path")
        let host: String? = try members.optional("host")
        let port: UInt16? = try members.optional("port")
        let isPretty: Bool = try members.optional("pretty") ?? false
        try members.finish()
        let backend: ChardevOptions.Backend
        switch (path, host, port) {
        case (let path?, nil, nil):
            do {
                try UnixSocket.checkPath(path)
            } catch {
                throw QMPError(.genericError, error.description)
            }
            backend = .unixSocket(path: path, .server(waits: false))
        case (nil, let host, let port?):
            backend = .tcpSocket(host: host ?? "localhost", port: port, .server(waits: false))
        default: throw QMPError(.genericError, "A monitor needs 'path', or 'port' with perhaps 'host'")
        }
        // No id of a command line holds a bracket by habit; duplicates are refused anyway.
        let chardev = "config.\(way)"
        return [
            .addChardev(ChardevOptions(id: chardev, backend: backend)),
            .addMonitor(MonitorOptions(id: id, chardev: chardev, isPretty: isPretty)),
        ]
    }
}

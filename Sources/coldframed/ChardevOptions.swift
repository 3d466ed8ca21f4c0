import LinuxSystem
import QAPI
import QMPWire

/// `--chardev`: what a monitor talks through.
struct ChardevOptions: Sendable, Equatable {
    enum Backend: Sendable, Equatable {
        /// Standard input and output.
        case standardStreams
        case unixSocket(path: String, Role)
        /// Loopback only.
        case tcpSocket(host: String, port: UInt16, Role)
    }

    enum Role: Sendable, Equatable {
        /// Listens; one client at a time. With `waits` the start goes on when the first has come.
        case server(waits: Bool)
        case client
    }

    var id: String
    var backend: Backend

    init(id: String, backend: Backend) {
        self.id = id
        self.backend = backend
    }

    /// Decodes QEMU's options; `input` is of dotted keys.
    init(_ input: QAPIInput) throws(QMPError) {
        var members = try QAPIObjectInput(input)
        let kind: String? = try members.optional("backend")
        let id: String? = try members.optional("id")
        guard let kind else { throw QMPError(.genericError, "Parameter 'backend' is missing") }
        switch kind {
        case "stdio":
            // Terminals are not touched: a monitor of machines needs no keys.
            let _: Bool? = try members.optional("signal")
            backend = .standardStreams
        case "socket": backend = try Self.socket(&members)
        default:
            throw QMPError(.genericError, "'\(kind)' is not a valid char driver name: use socket or stdio")
        }
        guard let id, !id.isEmpty else { throw QMPError(.genericError, "chardev: no id specified") }
        self.id = id
        try members.finish()
    }

    private static func socket(_ members: inout QAPIObjectInput) throws(QMPError) -> Backend {
        let path: String? = try members.optional("path")
        let host: String? = try members.optional("host")
        let port: String? = try members.optional("port")
        let isServer: Bool = try members.optional("server") ?? false
        let waits: Bool? = try members.optional("wait")
        // For TCP always on here.
        let _: Bool? = try members.optional("nodelay")
        let _: Bool? = try members.optional("delay")
        if waits != nil, !isServer {
            throw QMPError(.genericError, "'wait' option is incompatible with socket in client connect mode")
        }
        let role: Role = isServer ? .server(waits: waits ?? true) : .client
        switch (path, host) {
        case (let path?, nil):
            do {
                try UnixSocket.checkPath(path)
            } catch {
                throw QMPError(.genericError, error.description)
            }
            return .unixSocket(path: path, role)
        case (nil, let host?):
            guard let port else { throw QMPError(.genericError, "chardev: socket: no port given") }
            guard let number = UInt16(port) else {
                throw QMPError(.genericError, "Parameter 'port' expects a number from 0 to 65535")
            }
            return .tcpSocket(host: host, port: number, role)
        default:
            throw QMPError(.genericError, "chardev: socket: one of 'path' and 'host' is required")
        }
    }
}

import LinuxSystem
import NBDExport
import QAPI
import QMPWire

/// `--nbd-server`: the flat form of what the command `nbd-server-start` takes with `data` members.
enum NBDServerArguments {
    /// The arguments of `nbd-server-start`.
    static func decode(_ input: QAPIInput) throws(QMPError) -> JSONObject {
        let options = try NbdServerOptions(input)
        guard case .object(var address) = options.addr.json, let type = address["type"] else {
            throw QMPError(.genericError, "Parameter 'addr' is missing")
        }
        if let path = address["path"]?.stringValue {
            do {
                try UnixSocket.checkPath(path)
            } catch {
                throw QMPError(.genericError, error.description)
            }
        }
        address["type"] = nil
        var arguments: JSONObject = ["addr": ["type": type, "data": .object(address)]]
        if let tlsCreds = options.tlsCreds { arguments["tls-creds"] = .string(tlsCreds) }
        if let tlsAuthz = options.tlsAuthz { arguments["tls-authz"] = .string(tlsAuthz) }
        if let maxConnections = options.maxConnections { arguments["max-connections"] = maxConnections.json }
        return arguments
    }
}

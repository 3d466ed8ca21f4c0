import ColdframeKit
import LinuxSystem
import QMPWire

/// Where a server may listen: a unix socket or this host's loopback.
enum ListenAddress: Sendable, Equatable {
    case unix(path: String)
    /// The first free port from `ports`.
    case loopback(host: String, ports: ClosedRange<UInt16>)

    /// From QAPI's `SocketAddressLegacy` as JSON (`type` and `data`), whose shape has been checked.
    /// - Throws: what this server cannot do, by name.
    init(legacy json: JSONValue) throws(ColdframeError) {
        let type = json["type"]?.stringValue ?? ""
        let data = json["data"] ?? .null
        switch type {
        case "unix":
            if data["abstract"]?.boolValue == true {
                throw ColdframeError(
                    .unsupported, "The NBD server does not listen on abstract sockets: give a path in the file system")
            }
            self = .unix(path: data["path"]?.stringValue ?? "")
        case "inet":
            let first = try Self.port(data["port"]?.stringValue ?? "")
            let last = data["to"]?.intValue.flatMap { UInt16(exactly: $0) } ?? first
            self = .loopback(host: data["host"]?.stringValue ?? "", ports: first...max(first, last))
        default:
            throw ColdframeError(
                .unsupported, "The NBD server cannot listen on an address of type '\(type)': use 'unix' or 'inet'")
        }
    }

    private static func port(_ text: String) throws(ColdframeError) -> UInt16 {
        guard let port = UInt16(text) else {
            throw ColdframeError(.invalidArgument, "Port '\(text)' is not a number from 0 to 65535")
        }
        return port
    }

    /// The listening socket, and its path if it has one.
    func listen() throws(ColdframeError) -> (Descriptor, path: String?) {
        switch self {
        case .unix(let path): return (try Listening.unix(path: path), path)
        case .loopback(let host, let ports):
            var port = ports.lowerBound
            while true {
                do {
                    return (try Listening.loopback(host: host, port: port), nil)
                } catch {
                    // EADDRINUSE: on to the next.
                    guard error.errno == 98, port < ports.upperBound else { throw error }
                    port += 1
                }
            }
        }
    }
}

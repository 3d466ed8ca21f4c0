import ColdframeKit
import LinuxSystem
import QAPI

/// Where a server may listen: a unix socket or this host's loopback.
enum ListenAddress: Sendable, Equatable {
    case unix(path: String)
    /// The first free port from `ports`.
    case loopback(host: String, ports: ClosedRange<UInt16>)

    /// From the argument of `nbd-server-start`.
    /// - Throws: what is wrong with a port.
    init(_ address: SocketAddressLegacy) throws(ColdframeError) {
        switch address.branch {
        case .unix(let unix): self = .unix(path: unix.data.path)
        case .inet(let inet):
            guard let port = UInt16(inet.data.port) else {
                throw ColdframeError(.invalidArgument, "Port '\(inet.data.port)' is not a number from 0 to 65535")
            }
            self = .loopback(host: inet.data.host, ports: port...max(port, inet.data.to ?? port))
        case .none:
            throw ColdframeError(.invalidArgument, "The address has no members")
        }
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

import ColdframeKit
import LinuxSystem

/// Opens the sockets that servers listen on; errors say what to do.
enum Listening {
    private static let backlog: Int32 = 128

    /// A unix socket, mode 0600. A socket file at which nobody listens any more is replaced.
    static func unix(path: String) throws(ColdframeError) -> Descriptor {
        do {
            try UnixSocket.checkPath(path)
        } catch {
            throw ColdframeError(.invalidArgument, error.description)
        }
        do {
            return try UnixSocket.listen(path: path, backlog: backlog, mode: 0o600)
        } catch {
            throw ColdframeError(error, "Failed to bind socket to \(path)")
        }
    }

    /// A TCP socket on this host's loopback.
    static func loopback(host: String, port: UInt16) throws(ColdframeError) -> Descriptor {
        do {
            return try TCPSocket.listenLoopback(host: host, port: port, backlog: backlog)
        } catch {
            // EADDRNOTAVAIL and EINVAL: an address that others could reach, or a name.
            guard error.errno != 99, error.errno != 22 else {
                throw ColdframeError(
                    .unsupported,
                    "Cannot listen on '\(host)': the NBD server has no encryption and listens on loopback only "
                        + "(127.0.0.1, ::1 or localhost) or on a unix socket")
            }
            throw ColdframeError(error, "Failed to bind socket to \(host):\(port)")
        }
    }
}

import ColdframeKit
import LinuxSystem

/// Where a monitor's clients come from.
public enum MonitorChardev: Sendable, Equatable {
    /// Listens on a unix socket, 0600.
    case unixServer(path: String)
    /// Connects to a unix socket, once.
    case unixClient(path: String)
    /// Listens on this host's loopback; other addresses are refused. Port 0 lets the kernel choose.
    case tcpServer(host: String, port: UInt16)
    /// Connects to a TCP port, once.
    case tcpClient(host: String, port: UInt16)
    /// Standard input and output, one client.
    case stdio
}

/// An open chardev: what the monitor's thread accepts clients from.
struct MonitorEndpoint: Sendable {
    /// A listening socket, or the one connection.
    let descriptor: Descriptor
    let isListening: Bool
    /// Standard output for stdio; otherwise the same socket.
    let output: Descriptor
    let isSocket: Bool
    /// Clients must be of this user or root.
    let checksCredentials: Bool
    /// To be removed at the end.
    let socketPath: String?

    init(_ chardev: MonitorChardev) throws(ColdframeError) {
        do throws(SystemError) {
            switch chardev {
            case .unixServer(let path):
                descriptor = try UnixSocket.listen(path: path)
                socketPath = path
            case .unixClient(let path):
                descriptor = try UnixSocket.connect(path: path)
                socketPath = nil
            case .tcpServer(let host, let port):
                descriptor = try TCPSocket.listenLoopback(host: host, port: port)
                socketPath = nil
            case .tcpClient(let host, let port):
                descriptor = try TCPSocket.connect(host: host, port: port)
                socketPath = nil
            case .stdio:
                descriptor = try Self.copy(0)
                socketPath = nil
            }
            output = chardev == .stdio ? try Self.copy(1) : descriptor
        } catch {
            throw Self.explained(error, chardev)
        }
        switch chardev {
        case .unixServer, .tcpServer: isListening = true
        default: isListening = false
        }
        isSocket = chardev != .stdio
        if case .unixServer = chardev { checksCredentials = true } else { checksCredentials = false }
    }

    /// A copy, because standard input and output are not ours to close.
    private static func copy(_ number: Int32) throws(SystemError) -> Descriptor {
        let borrowed = Descriptor(owning: number)
        defer { _ = borrowed.release() }
        return try borrowed.duplicate()
    }

    private static func explained(_ error: SystemError, _ chardev: MonitorChardev) -> ColdframeError {
        switch chardev {
        case .unixServer(let path):
            do throws(UnixSocket.PathTooLong) {
                try UnixSocket.checkPath(path)
            } catch {
                return ColdframeError(.invalidArgument, error.description)
            }
            return ColdframeError(error, "Failed to bind socket to \(path)")
        case .tcpServer(let host, let port):
            return ColdframeError(error, "Failed to listen on \(host):\(port), only loopback addresses are allowed")
        case .unixClient(let path): return ColdframeError(error, "Failed to connect to '\(path)'")
        case .tcpClient(let host, let port): return ColdframeError(error, "Failed to connect to \(host):\(port)")
        case .stdio: return ColdframeError(error, "Failed to use standard input and output")
        }
    }
}

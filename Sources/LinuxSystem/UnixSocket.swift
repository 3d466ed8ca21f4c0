import CLinux
import Glibc

/// Stream sockets with a path.
public enum UnixSocket {
    /// Bytes that a path may have: `sun_path` less its terminator.
    public static let maximumPathByteCount = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1

    /// A path that does not fit into `sun_path`.
    public struct PathTooLong: Error, Sendable, Equatable, CustomStringConvertible {
        public let path: String
        public init(path: String) { self.path = path }
        /// QEMU's words for it.
        public var description: String {
            "UNIX socket path '\(path)' is too long: Path must be less than \(maximumPathByteCount + 1) bytes"
        }
    }

    /// Says whether the path fits; the error's text names the limit.
    public static func checkPath(_ path: String) throws(PathTooLong) {
        if path.utf8.count > maximumPathByteCount { throw PathTooLong(path: path) }
    }

    /// Listens at `path`.
    ///
    /// A socket file at which nobody listens (what a killed process leaves) is replaced; one that answers stays, with
    /// EADDRINUSE, and so does a file of another kind. The new socket appears with its permissions.
    /// - Throws: ENAMETOOLONG if the path does not fit (`checkPath` has the words).
    public static func listen(path: String, backlog: Int32 = 16, mode: UInt32 = 0o600) throws(SystemError) -> Descriptor
    {
        let socket = try makeSocket()
        do {
            try bind(socket, path)
        } catch {
            guard error.errno == EADDRINUSE, isStale(path) else { throw error }
            try Files.unlink(path)
            try bind(socket, path)
        }
        do {
            // Nobody can connect before listen, so that the permissions are set before they matter.
            try Files.chmod(path, mode: mode)
            _ = try SystemCall.run("listen", path) { Glibc.listen(socket.raw, backlog) }
        } catch {
            try? Files.unlink(path)
            throw error
        }
        return socket
    }

    /// Connects to the socket at `path`.
    public static func connect(path: String) throws(SystemError) -> Descriptor {
        let socket = try makeSocket()
        try withAddress(of: path, "connect") { address, length throws(SystemError) in
            _ = try SystemCall.run("connect", path) { Glibc.connect(socket.raw, address, length) }
        }
        return socket
    }

    /// `socketpair(2)`: two connected ends.
    public static func pair() throws(SystemError) -> (Descriptor, Descriptor) {
        Signals.ignoreBrokenPipe()
        var ends: (Int32, Int32) = (-1, -1)
        _ = try SystemCall.run("socketpair") {
            withUnsafeMutablePointer(to: &ends) {
                $0.withMemoryRebound(to: Int32.self, capacity: 2) {
                    socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, $0)
                }
            }
        }
        return (Descriptor(owning: ends.0), Descriptor(owning: ends.1))
    }

    private static func makeSocket() throws(SystemError) -> Descriptor {
        Signals.ignoreBrokenPipe()
        return Descriptor(
            owning: try SystemCall.run("socket") {
                socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            })
    }

    private static func bind(_ socket: Descriptor, _ path: String) throws(SystemError) {
        try withAddress(of: path, "bind") { address, length throws(SystemError) in
            _ = try SystemCall.run("bind", path) { Glibc.bind(socket.raw, address, length) }
        }
    }

    /// Nobody listens at the socket file.
    private static func isStale(_ path: String) -> Bool {
        guard (try? Files.status(path, followLinks: false))?.isSocket == true else { return false }
        do {
            _ = try connect(path: path)
            return false
        } catch {
            return error.errno == ECONNREFUSED
        }
    }

    private static func withAddress(
        of path: String, _ operation: String,
        _ body: (UnsafePointer<sockaddr>, socklen_t) throws(SystemError) -> Void
    ) throws(SystemError) {
        let bytes = Array(path.utf8)
        if bytes.count > maximumPathByteCount {
            throw SystemError(errno: ENAMETOOLONG, operation: operation, subject: path)
        }
        if bytes.isEmpty || bytes.contains(0) { throw SystemError(errno: EINVAL, operation: operation, subject: path) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        try withUnsafePointer(to: &address) { pointer throws(SystemError) in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address throws(SystemError) in
                try body(address, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}

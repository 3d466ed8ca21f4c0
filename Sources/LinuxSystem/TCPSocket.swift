import Glibc

/// TCP sockets. What listens does so on this host's loopback only.
public enum TCPSocket {
    /// Listens on loopback. `host` is `localhost`, a numeric address of 127/8, or `::1`; empty means 127.0.0.1. Port 0
    /// lets the kernel choose (`localPort`).
    /// - Throws: EADDRNOTAVAIL for an address that others could reach.
    public static func listenLoopback(host: String, port: UInt16, backlog: Int32 = 16) throws(SystemError) -> Descriptor
    {
        let subject = "\(host):\(port)"
        let address = try Address(host: host.isEmpty ? "127.0.0.1" : host, port: port, operation: "bind")
        guard address.isLoopback else { throw SystemError(errno: EADDRNOTAVAIL, operation: "bind", subject: subject) }
        let socket = try makeSocket(address)
        try socket.setOption(SOL_SOCKET, SO_REUSEADDR, 1)
        _ = try SystemCall.run("bind", subject) { address.withPointer { Glibc.bind(socket.raw, $0, $1) } }
        _ = try SystemCall.run("listen", subject) { Glibc.listen(socket.raw, backlog) }
        return socket
    }

    /// Connects to a numeric address or `localhost`; other names are not looked up.
    public static func connect(host: String, port: UInt16) throws(SystemError) -> Descriptor {
        let address = try Address(host: host, port: port, operation: "connect")
        let socket = try makeSocket(address)
        let subject = "\(host):\(port)"
        try SystemCall.checkFault("connect", subject)
        if address.withPointer({ Glibc.connect(socket.raw, $0, $1) }) == -1 {
            guard errno == EINTR else { throw SystemError(errno: errno, operation: "connect", subject: subject) }
            // An interrupted connect goes on by itself: wait for its end and ask how it went.
            _ = try socket.poll(for: .writable)
            let code = try socket.option(SOL_SOCKET, SO_ERROR)
            if code != 0 { throw SystemError(errno: code, operation: "connect", subject: subject) }
        }
        return socket
    }

    /// The port that a socket is bound to (`getsockname(2)`).
    public static func localPort(of socket: Descriptor) throws(SystemError) -> UInt16 {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        _ = try SystemCall.run("getsockname") {
            withUnsafeMutablePointer(to: &storage) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(socket.raw, $0, &length) }
            }
        }
        // Port and family lie at the same place in both kinds of address.
        return withUnsafeBytes(of: storage) { UInt16(bigEndian: $0.load(fromByteOffset: 2, as: UInt16.self)) }
    }

    private static func makeSocket(_ address: Address) throws(SystemError) -> Descriptor {
        Signals.ignoreBrokenPipe()
        return Descriptor(
            owning: try SystemCall.run("socket") {
                socket(address.family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            })
    }

    private enum Address {
        case v4(sockaddr_in)
        case v6(sockaddr_in6)

        init(host: String, port: UInt16, operation: String) throws(SystemError) {
            let name = host == "localhost" ? "127.0.0.1" : host
            var v4 = sockaddr_in()
            var v6 = sockaddr_in6()
            if !name.utf8.contains(0), inet_pton(AF_INET, name, &v4.sin_addr) == 1 {
                v4.sin_family = sa_family_t(AF_INET)
                v4.sin_port = port.bigEndian
                self = .v4(v4)
            } else if !name.utf8.contains(0), inet_pton(AF_INET6, name, &v6.sin6_addr) == 1 {
                v6.sin6_family = sa_family_t(AF_INET6)
                v6.sin6_port = port.bigEndian
                self = .v6(v6)
            } else {
                throw SystemError(errno: EINVAL, operation: operation, subject: "\(host):\(port)")
            }
        }

        var family: Int32 {
            switch self {
            case .v4: AF_INET
            case .v6: AF_INET6
            }
        }

        var isLoopback: Bool {
            switch self {
            case .v4(let address): UInt32(bigEndian: address.sin_addr.s_addr) >> 24 == 127
            case .v6(let address):
                withUnsafeBytes(of: address.sin6_addr) { Array($0) == Array(repeating: 0, count: 15) + [1] }
            }
        }

        func withPointer(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
            switch self {
            case .v4(let address): Self.rebind(address, body)
            case .v6(let address): Self.rebind(address, body)
            }
        }

        private static func rebind<T>(_ address: T, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
            withUnsafePointer(to: address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<T>.size)) }
            }
        }
    }
}

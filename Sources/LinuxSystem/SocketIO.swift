import CLinux
import Glibc

/// Which half of a connection to end.
public enum ShutdownDirection: Sendable {
    case read, write, both

    var how: Int32 {
        switch self {
        case .read: Int32(SHUT_RD)
        case .write: Int32(SHUT_WR)
        case .both: Int32(SHUT_RDWR)
        }
    }
}

/// Who is at the other end of a unix socket, as the kernel knew it when the connection was made.
public struct PeerCredentials: Sendable, Equatable {
    public let processID: Int32
    public let userID: UInt32
    public let groupID: UInt32
}

extension Descriptor {
    /// `accept4(2)`. After `shutdown` of the listening socket it fails with EINVAL: the way to end a thread that accepts.
    public func accept() throws(SystemError) -> Descriptor {
        while true {
            do {
                return Descriptor(owning: try SystemCall.run("accept") { cf_accept(raw) })
            } catch {
                // The client went away before it was accepted.
                if error.errno != ECONNABORTED { throw error }
            }
        }
    }

    /// SO_PEERCRED of a unix socket.
    public func peerCredentials() throws(SystemError) -> PeerCredentials {
        var (pid, uid, gid): (pid_t, uid_t, gid_t) = (0, 0, 0)
        _ = try SystemCall.run("getsockopt") { cf_peer_credentials(raw, &pid, &uid, &gid) }
        return PeerCredentials(processID: pid, userID: uid, groupID: gid)
    }

    /// `sendmsg(2)` with SCM_RIGHTS: at least one byte must go with the descriptors (at most 253). Returns how many
    /// bytes went; the descriptors went with the first.
    public func sendWithDescriptors(_ bytes: UnsafeRawBufferPointer, _ descriptors: [Int32]) throws(SystemError) -> Int
    {
        if bytes.isEmpty, !descriptors.isEmpty { throw SystemError(errno: EINVAL, operation: "sendmsg") }
        return try SystemCall.run("sendmsg") {
            cf_send_descriptors(raw, bytes.baseAddress, bytes.count, descriptors, descriptors.count)
        }
    }

    /// Sends all bytes, the descriptors with the first of them.
    public func sendAllWithDescriptors(_ bytes: [UInt8], _ descriptors: [Int32]) throws(SystemError) {
        try bytes.withUnsafeBufferPointer { buffer throws(SystemError) in
            let all = UnsafeRawBufferPointer(buffer)
            let count = try sendWithDescriptors(all, descriptors)
            try writeAll(UnsafeRawBufferPointer(rebasing: all[count...]))
        }
    }

    /// `send(2)` of what the socket takes at once, without SIGPIPE: how many bytes that were. 0 as well if it takes none,
    /// or has an error, which the next call that waits reports.
    public func sendNow(_ bytes: UnsafeRawBufferPointer) -> Int {
        let count = try? SystemCall.run("send") {
            send(raw, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        }
        return count ?? 0
    }

    /// `recvmsg(2)` with SCM_RIGHTS. Descriptors come CLOEXEC. If more than `maxDescriptors` came, all are closed and
    /// EMSGSIZE is thrown.
    public func receiveWithDescriptors(
        into buffer: UnsafeMutableRawBufferPointer, maxDescriptors: Int
    ) throws(SystemError) -> (byteCount: Int, descriptors: [Descriptor]) {
        guard let base = buffer.baseAddress else { throw SystemError(errno: EINVAL, operation: "recvmsg") }
        let room = min(max(maxDescriptors, 0), 253)
        var numbers = [Int32](repeating: -1, count: room)
        var received = 0
        let count = try SystemCall.run("recvmsg") {
            cf_receive_descriptors(raw, base, buffer.count, &numbers, room, &received)
        }
        return (count, numbers.prefix(received).map { Descriptor(owning: $0) })
    }

    /// `shutdown(2)`: also wakes whoever blocks in a call on the socket.
    public func shutdown(_ direction: ShutdownDirection) throws(SystemError) {
        _ = try SystemCall.run("shutdown") { Glibc.shutdown(raw, direction.how) }
    }

    /// TCP_NODELAY.
    public func setNoDelay(_ isOn: Bool) throws(SystemError) {
        try setOption(Int32(IPPROTO_TCP), TCP_NODELAY, isOn ? 1 : 0)
    }

    /// SO_SNDBUF; the kernel doubles it and bounds it.
    public func setSendBufferByteCount(_ byteCount: Int) throws(SystemError) {
        try setOption(SOL_SOCKET, SO_SNDBUF, Int32(clamping: byteCount))
    }

    /// SO_RCVBUF; the kernel doubles it and bounds it.
    public func setReceiveBufferByteCount(_ byteCount: Int) throws(SystemError) {
        try setOption(SOL_SOCKET, SO_RCVBUF, Int32(clamping: byteCount))
    }

    /// SO_SNDTIMEO: a write that makes no way for so long fails with EAGAIN. nil waits for ever.
    public func setSendTimeout(milliseconds: Int?) throws(SystemError) {
        try setTimeout(SO_SNDTIMEO, milliseconds)
    }

    /// SO_RCVTIMEO: the same for reads.
    public func setReceiveTimeout(milliseconds: Int?) throws(SystemError) {
        try setTimeout(SO_RCVTIMEO, milliseconds)
    }

    private func setTimeout(_ name: Int32, _ milliseconds: Int?) throws(SystemError) {
        let total = max(milliseconds ?? 0, 0)
        var time = timeval(tv_sec: total / 1000, tv_usec: total % 1000 * 1000)
        _ = try SystemCall.run("setsockopt") {
            setsockopt(raw, SOL_SOCKET, name, &time, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    func setOption(_ level: Int32, _ name: Int32, _ value: Int32) throws(SystemError) {
        var value = value
        _ = try SystemCall.run("setsockopt") {
            setsockopt(raw, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
        }
    }

    func option(_ level: Int32, _ name: Int32) throws(SystemError) -> Int32 {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        _ = try SystemCall.run("getsockopt") { getsockopt(raw, level, name, &value, &length) }
        return value
    }
}

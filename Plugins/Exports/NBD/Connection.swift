import LinuxSystem

/// One client from accept to close. The thread that negotiates becomes the session's first worker; the last worker out
/// closes the socket and signs off.
final class Connection: Sendable {
    /// Stack of a worker; only what is used of it takes memory.
    static let stackByteCount = 1 << 20

    let socket: Descriptor
    let server: Server
    /// Monotonic time in nanoseconds by which the handshake must be over.
    let handshakeDeadline: UInt64

    private struct State {
        var isOpen = true
        var isNegotiating = true
        var export: NamedExport?
    }
    private let state = Locked(State())

    init(socket: Descriptor, server: Server, handshakeDeadline: UInt64) {
        self.socket = socket
        self.server = server
        self.handshakeDeadline = handshakeDeadline
    }

    var isNegotiating: Bool { state.withLock { $0.isNegotiating && $0.isOpen } }

    /// Ends the connection from outside: its workers wake, finish what they do and leave. Never blocks.
    func shutdown() {
        // Under the lock, so that the number of the descriptor is not yet another file's.
        state.withLock { if $0.isOpen { try? socket.shutdown(.both) } }
    }

    /// Starts the thread.
    func start() throws(SystemError) {
        _ = try SystemThread.start(name: "nbd", stackByteCount: Self.stackByteCount) { self.serve() }
    }

    private func serve() {
        guard let agreement = Handshake(socket: socket, exports: server.exports, claim: claim).run() else {
            return finish()
        }
        state.withLock { $0.isNegotiating = false }
        Session(connection: self, agreement: agreement, workerLimit: server.limits.workersPerConnection).work()
    }

    private func claim(_ export: NamedExport) -> Bool {
        guard export.attach(self) else { return false }
        state.withLock { $0.export = export }
        return true
    }

    /// Called once, by the last thread of the connection.
    func finish() {
        let export = state.withLock { state in
            state.isOpen = false
            socket.close()
            return state.export
        }
        export?.detach(self)
        server.forget(self)
    }
}

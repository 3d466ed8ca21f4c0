import LinuxSystem

/// Bounds of one server.
struct ServerLimits: Sendable {
    /// Connections at the same time, those in their handshake included.
    var maxConnections = 512
    var workersPerConnection = 4
    var handshakeMilliseconds = 10_000
    /// A client beyond `maxConnections` waits this long for a place before it is turned away.
    var refusalMilliseconds = 1000
}

/// A listening socket, its connections and its exports. Every method may be called on any thread; none blocks.
final class Server: Sendable {
    let exports = ExportTable()
    let limits: ServerLimits

    private let listener: Descriptor
    /// The socket file, to be removed at the end if it is still the one that was made.
    private let socketFile: SocketFile?
    private let wake: EventDescriptor

    private struct SocketFile {
        let path: String
        let inode: UInt64
    }

    private struct State {
        var isStopping = false
        var isListening = true
        var connections: [Connection] = []
        var waiters: [CheckedContinuation<Void, Never>] = []
        var isDone: Bool { !isListening && connections.isEmpty }
    }
    private let state = Locked(State())

    /// Serves what connects to `listener`, which is bound and listens. `socketPath` is its file if it has one.
    init(listener: Descriptor, socketPath: String?, limits: ServerLimits = ServerLimits()) throws(SystemError) {
        self.listener = listener
        self.limits = limits
        wake = try EventDescriptor()
        if let socketPath {
            socketFile = SocketFile(path: socketPath, inode: try Files.status(socketPath, followLinks: false).inode)
        } else {
            socketFile = nil
        }
        // A client may go between poll and accept.
        try listener.setNonBlocking(true)
        _ = try SystemThread.start(name: "nbd-accept", stackByteCount: Connection.stackByteCount) { self.acceptLoop() }
    }

    /// Disconnects everybody, stops to listen, and suspends until no thread of the server is left. Idempotent.
    func stop() async {
        let connections = state.withLock { state in
            state.isStopping = true
            return state.connections
        }
        wake.signal()
        for connection in connections { connection.shutdown() }
        await withCheckedContinuation { continuation in
            let isDone = state.withLock { state in
                if state.isDone { return true }
                state.waiters.append(continuation)
                return false
            }
            if isDone { continuation.resume() }
        }
    }

    /// A connection has ended.
    func forget(_ connection: Connection) {
        finish { $0.connections.removeAll { $0 === connection } }
        // There may be a client that waits for the place.
        wake.signal()
    }

    private func finish(_ change: (inout State) -> Void) {
        let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            change(&state)
            guard state.isDone else { return [] }
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    // MARK: The accepting thread

    private func acceptLoop() {
        /// Monotonic time at which a client that found no place is turned away.
        var refusal: UInt64?
        while true {
            let (isStopping, isFull, connections) = state.withLock {
                ($0.isStopping, $0.connections.count >= limits.maxConnections, $0.connections)
            }
            if isStopping { break }
            let now = SystemClock.monotonicNanoseconds()
            var deadline: UInt64?
            for connection in connections where connection.isNegotiating {
                if connection.handshakeDeadline <= now {
                    connection.shutdown()
                } else {
                    deadline = min(deadline ?? .max, connection.handshakeDeadline)
                }
            }
            if !isFull { refusal = nil }
            if let refusal { deadline = min(deadline ?? .max, refusal) }
            switch wait(withListener: refusal == nil, until: deadline, now: now) {
            case .clientWaits where !isFull: admit()
            case .clientWaits:
                refusal = now &+ UInt64(limits.refusalMilliseconds) * 1_000_000
            case .somethingElse:
                if isFull, let due = refusal, SystemClock.monotonicNanoseconds() >= due {
                    (try? listener.accept())?.close()
                    refusal = nil
                }
            }
        }
        listener.close()
        if let socketFile, (try? Files.status(socketFile.path, followLinks: false))?.inode == socketFile.inode {
            try? Files.unlink(socketFile.path)
        }
        finish { $0.isListening = false }
    }

    private enum Wakeup {
        case clientWaits, somethingElse
    }

    private func wait(withListener: Bool, until deadline: UInt64?, now: UInt64) -> Wakeup {
        let timeout = deadline.map { Int(($0 - min($0, now)) / 1_000_000) + 1 }
        var watched: [(Int32, PollEvents)] = [(wake.raw, .readable)]
        if withListener { watched.append((listener.raw, .readable)) }
        guard let events = try? pollDescriptors(watched, timeoutMilliseconds: timeout) else {
            // Out of memory: come back, but not at once.
            SystemThread.sleep(milliseconds: 100)
            return .somethingElse
        }
        wake.drain()
        return withListener && !events[1].isEmpty ? .clientWaits : .somethingElse
    }

    private func admit() {
        let socket: Descriptor
        do {
            socket = try listener.accept()
        } catch {
            // Out of descriptors: the client waits, and polling again at once would be a busy loop.
            if !error.isTransient { SystemThread.sleep(milliseconds: 100) }
            return
        }
        try? socket.setNonBlocking(false)
        // TCP only; a unix socket has nothing to delay.
        if socketFile == nil { try? socket.setNoDelay(true) }
        let deadline = SystemClock.monotonicNanoseconds() &+ UInt64(limits.handshakeMilliseconds) * 1_000_000
        let connection = Connection(socket: socket, server: self, handshakeDeadline: deadline)
        let isAdmitted = state.withLock { state in
            guard !state.isStopping else { return false }
            state.connections.append(connection)
            return true
        }
        guard isAdmitted else { return }
        do {
            try connection.start()
        } catch {
            connection.finish()
        }
    }
}

extension SystemError {
    /// Nothing there after all (EAGAIN).
    fileprivate var isTransient: Bool { errno == 11 }
}

import LinuxSystem
import Synchronization

/// The transmission phase of one connection, shared by its workers.
///
/// Each worker takes the next request under the receive lock, carries it out with no lock held, and replies under the
/// send lock. A worker is started when a request has been taken and nobody waits for the next one, up to the limit; so a
/// flush that takes its time delays nothing else, and an idle connection has one thread.
final class Session: Sendable {
    let export: NamedExport
    let isStructured: Bool
    let contexts: MetaContexts
    let buffers: BufferPool

    private let connection: Connection
    private let receiver: RequestReceiver
    private let sendLock = PlainMutex()
    private let workerLimit: Int
    private let workerCount = Atomic<Int>(1)

    init(connection: Connection, agreement: Handshake.Agreement, workerLimit: Int) {
        self.connection = connection
        self.workerLimit = workerLimit
        export = agreement.export
        isStructured = agreement.isStructured
        contexts = agreement.contexts
        buffers = BufferPool(limit: workerLimit)
        receiver = RequestReceiver(socket: connection.socket, buffers: buffers)
    }

    /// A worker's life. The first call is the connection's own thread's.
    func work() {
        let executor = RequestExecutor(session: self)
        while let received = receiver.next(startFollower: startWorker) {
            let isSent = executor.carryOut(received)
            if let buffer = received.payload { buffers.give(buffer) }
            if !isSent {
                receiver.end()
                connection.shutdown()
                break
            }
        }
        executor.close()
        if workerCount.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { connection.finish() }
    }

    /// Called under the receive lock by a worker that has a request, when nobody else waits for the next.
    private func startWorker() {
        guard workerCount.load(ordering: .acquiring) < workerLimit else { return }
        workerCount.add(1, ordering: .acquiringAndReleasing)
        do {
            _ = try SystemThread.start(name: "nbd", stackByteCount: Connection.stackByteCount) { self.work() }
        } catch {
            // No room for a thread: those that are there go on.
            workerCount.subtract(1, ordering: .acquiringAndReleasing)
        }
    }

    /// Sends one whole reply. False if the client is gone.
    func send(_ bytes: UnsafeRawBufferPointer) -> Bool {
        sendLock.lock()
        defer { sendLock.unlock() }
        do {
            try connection.socket.writeAll(bytes)
            return true
        } catch {
            return false
        }
    }
}

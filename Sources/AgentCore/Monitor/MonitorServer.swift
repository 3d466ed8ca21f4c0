import ColdframeKit
import LinuxSystem
import Logging
import QMPWire
import Synchronization

/// One monitor: a thread that takes its clients, by default one after the other. The next sits in the listen backlog,
/// without a greeting, until one before has gone.
final class MonitorServer: Sendable {
    let id: String
    private let isPretty: Bool
    private let endpoint: MonitorEndpoint
    private let dispatcher: Dispatcher
    private let logger: Logger
    /// How many clients are served at once: one, as QEMU does, or several, each by a thread of its own.
    private let clientLimit: Int
    private let connections = Locked<[MonitorConnection]>([])
    private let clientLeft = ConditionVariable()
    private let isStopped = Atomic(false)

    init(
        id: String, chardev: MonitorChardev, isPretty: Bool, clientLimit: Int, dispatcher: Dispatcher, logger: Logger
    ) throws(ColdframeError) {
        self.id = id
        self.clientLimit = clientLimit
        self.isPretty = isPretty
        self.dispatcher = dispatcher
        self.logger = logger
        endpoint = try MonitorEndpoint(chardev)
    }

    func start() throws(ColdframeError) {
        do throws(SystemError) {
            _ = try SystemThread.start(name: "mon-\(id)") { [self] in
                if endpoint.isListening {
                    acceptClients()
                } else {
                    serve(input: endpoint.descriptor, output: endpoint.output)
                }
                endpoint.descriptor.close()
            }
        } catch {
            throw ColdframeError(error, "Failed to start monitor '\(id)'")
        }
    }

    /// The TCP port that the monitor listens on.
    var port: UInt16? { try? TCPSocket.localPort(of: endpoint.descriptor) }

    @AgentActor
    func send(event: EncodedMessage) {
        for connection in connections.withLock({ $0 }) { connection.sendEvent(event) }
    }

    /// No more clients; each that is there gets up to `milliseconds` to take what waits. Blocks.
    func stop(milliseconds: Int) {
        guard !isStopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
        // Wakes the thread that accepts.
        if endpoint.isListening { try? endpoint.descriptor.shutdown(.both) }
        if let path = endpoint.socketPath { try? Files.unlink(path) }
        for connection in connections.withLock({ $0 }) { connection.closeWhenSent(milliseconds: milliseconds) }
        clientLeft.broadcast()
    }

    private func acceptClients() {
        while !isStopped.load(ordering: .acquiring) {
            do throws(SystemError) {
                let client = try endpoint.descriptor.accept()
                guard try isAllowed(client) else { continue }
                if clientLimit == 1 {
                    serve(input: client, output: client)
                } else {
                    try SystemThread.start(name: "mon-\(id)") { [self] in serve(input: client, output: client) }
                    clientLeft.wait { self.hasRoom || self.isStopped.load(ordering: .acquiring) }
                }
            } catch {
                if isStopped.load(ordering: .acquiring) { return }
                logger.warning("monitor \(id): \(error)")
                // No descriptors or memory left, which may pass.
                SystemThread.sleep(milliseconds: 100)
            }
        }
    }

    private var hasRoom: Bool { connections.withLock { $0.count < clientLimit } }

    private func isAllowed(_ client: Descriptor) throws(SystemError) -> Bool {
        guard endpoint.checksCredentials else { return true }
        let user = try client.peerCredentials().userID
        if user == 0 || user == ProcessControl.effectiveUserID { return true }
        logger.warning("monitor \(id): refused a client of user \(user)")
        return false
    }

    private func serve(input: Descriptor, output: Descriptor) {
        let client: MonitorConnection
        do throws(SystemError) {
            client = try MonitorConnection(
                monitorID: id, isPretty: isPretty, input: input, output: output, isSocket: endpoint.isSocket,
                logger: logger)
        } catch {
            return logger.error("monitor \(id): \(error)")
        }
        connections.withLock { $0.append(client) }
        if isStopped.load(ordering: .acquiring) { client.close() }
        let greeting = QMPResponse.greeting(version: AgentVersion.json, capabilities: Negotiation.capabilities)
        let dispatcher = dispatcher
        client.serve(greeting: greeting) {
            Task { @AgentActor in dispatcher.pump(client) }
        } outOfBand: { envelope in
            Task { @AgentActor in await dispatcher.runOutOfBand(envelope, client) }
        }
        connections.withLock { $0.removeAll { $0 === client } }
        clientLeft.broadcast()
        Task { @AgentActor in dispatcher.remove(client) }
        if endpoint.isListening { input.close() }
    }
}

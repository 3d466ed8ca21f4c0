import ColdframeKit
import LinuxSystem
import Logging
import QMPWire
import Synchronization

/// One monitor: a thread that serves its clients one after the other. The next sits in the listen backlog, without a
/// greeting, until the one before has gone.
final class MonitorServer: Sendable {
    let id: String
    private let isPretty: Bool
    private let endpoint: MonitorEndpoint
    private let dispatcher: Dispatcher
    private let logger: Logger
    private let connection = Mutex<MonitorConnection?>(nil)
    private let isStopped = Atomic(false)

    init(id: String, chardev: MonitorChardev, isPretty: Bool, dispatcher: Dispatcher, logger: Logger)
        throws(ColdframeError)
    {
        self.id = id
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

    func send(event: JSONValue) { connection.withLock { $0 }?.sendEvent(event) }

    /// No more clients; the present one gets up to `milliseconds` to take what waits. Blocks.
    func stop(milliseconds: Int) {
        guard !isStopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
        // Wakes the thread that accepts.
        if endpoint.isListening { try? endpoint.descriptor.shutdown(.both) }
        if let path = endpoint.socketPath { try? Files.unlink(path) }
        connection.withLock { $0 }?.closeWhenSent(milliseconds: milliseconds)
    }

    private func acceptClients() {
        while !isStopped.load(ordering: .acquiring) {
            do throws(SystemError) {
                let client = try endpoint.descriptor.accept()
                guard try isAllowed(client) else { continue }
                serve(input: client, output: client)
            } catch {
                if isStopped.load(ordering: .acquiring) { return }
                logger.warning("monitor \(id): \(error)")
                // No descriptors or memory left, which may pass.
                SystemThread.sleep(milliseconds: 100)
            }
        }
    }

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
        connection.withLock { $0 = client }
        if isStopped.load(ordering: .acquiring) { client.close() }
        let greeting = QMPResponse.greeting(version: AgentVersion.json, capabilities: Negotiation.capabilities)
        let dispatcher = dispatcher
        client.serve(greeting: greeting) {
            Task { @AgentActor in dispatcher.pump(client) }
        } outOfBand: { envelope in
            Task { @AgentActor in await dispatcher.runOutOfBand(envelope, client) }
        }
        connection.withLock { $0 = nil }
        Task { @AgentActor in dispatcher.remove(client) }
        if endpoint.isListening { input.close() }
    }
}

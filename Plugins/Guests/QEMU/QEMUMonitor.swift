import ColdframeKit
import LinuxSystem
import QMPClient
import QMPWire

/// QMP with the guest's QEMU: commands with our errors, and events in their order on the actor.
///
/// A connection that ends while QEMU lives (it sent what is no QMP, somebody cut it) is opened again: commands that come
/// meanwhile wait for it, those that were under way fail.
@AgentActor
final class QEMUMonitor {
    private let path: String
    private var client: QMPClient
    private var listeners: [UInt64: @AgentActor (JSONObject) -> Void] = [:]
    private var listenerCount: UInt64 = 0
    private var pump: Task<Void, Never>?
    private var interruptAction: (@AgentActor () -> Void)?
    private var closeAction: (@AgentActor () -> Void)?
    private var state = State.open

    private enum State {
        case open, reopening, closed
    }

    /// There is no connection now.
    var isClosed: Bool { state != .open }

    /// How long a QEMU whose connection has ended may take to answer at a new one before that is tried again.
    private static let reopenTimeoutMilliseconds = 5_000

    /// Connects as soon as QEMU listens. `giveUp` says why to stop trying, if there is a reason.
    static func connect(
        path: String, timeoutMilliseconds: Int, giveUp: () -> ColdframeError?
    ) async throws -> QEMUMonitor {
        let deadline = SystemClock.monotonicNanoseconds() + UInt64(timeoutMilliseconds) * 1_000_000
        while true {
            if let reason = giveUp() { throw reason }
            do {
                let client = try await connectClient(path)
                let monitor = QEMUMonitor(client: client, path: path)
                do {
                    try await client.negotiate(timeoutMilliseconds: timeoutMilliseconds)
                } catch {
                    monitor.close()
                    throw error
                }
                return monitor
            } catch {
                if let reason = giveUp() { throw reason }
                guard SystemClock.monotonicNanoseconds() < deadline else {
                    throw ColdframeError(.timedOut, "QEMU's monitor did not answer at '\(path)': \(error)")
                }
                try await Task.sleep(nanoseconds: 10_000_000)
            }
        }
    }

    private static func connectClient(_ path: String) async throws -> QMPClient {
        try await BlockingPool.shared.run { () throws(QMPClientError) in try QMPClient.connect(path: path) }
    }

    private init(client: QMPClient, path: String) {
        self.client = client
        self.path = path
        listenToClient()
    }

    /// Before the first command, so that no event is missed.
    private func listenToClient() {
        let events = client.events(limit: 65536)
        let key = ObjectIdentifier(client)
        pump = Task { [weak self] in
            for await event in events { self?.deliver(event) }
            await self?.ended(key)
        }
    }

    private func deliver(_ event: JSONObject) {
        for listener in listeners.values { listener(event) }
    }

    /// Calls `listener` for every event until `stopListening`. Those of a time without a connection are lost.
    func listen(_ listener: @escaping @AgentActor (JSONObject) -> Void) -> UInt64 {
        listenerCount += 1
        listeners[listenerCount] = listener
        return listenerCount
    }

    func stopListening(_ key: UInt64) { listeners[key] = nil }

    /// Calls `action` each time the connection ends, before it is opened again.
    func onInterrupted(_ action: @escaping @AgentActor () -> Void) { interruptAction = action }

    /// Calls `action` once when the connection has ended for good, at once if it has.
    func onClosed(_ action: @escaping @AgentActor () -> Void) {
        if state == .closed { action() } else { closeAction = action }
    }

    // MARK: A connection that has ended

    private func ended(_ client: ObjectIdentifier) async {
        guard state == .open, client == ObjectIdentifier(self.client) else { return }
        state = .reopening
        interruptAction?()
        while state == .reopening {
            do {
                let next = try await Self.connectClient(path)
                try await next.negotiate(timeoutMilliseconds: Self.reopenTimeoutMilliseconds)
                guard state == .reopening else { return next.close() }
                self.client = next
                listenToClient()
                state = .open
            } catch QMPClientError.unreachable {
                // Nobody listens: the process is gone.
                closeForGood()
            } catch {
                try? await Task.sleep(nanoseconds: 100_000_000)  // Nobody cancels it.
            }
        }
    }

    private func closeForGood() {
        guard state != .closed else { return }
        state = .closed
        closeAction?()
        closeAction = nil
    }

    /// While the connection is opened again, at most until the deadline; then the command fails by itself.
    private func untilOpen(deadline: UInt64?) async {
        while state == .reopening, SystemClock.monotonicNanoseconds() < deadline ?? .max {
            try? await Task.sleep(nanoseconds: 10_000_000)  // Nobody cancels it.
        }
    }

    /// A question is answered in that time, or QEMU hangs. What does something has no limit of its own: `stop` waits for
    /// the disks.
    private static let answerTimeoutMilliseconds = 60_000

    /// Runs a command; QEMU's error becomes ours, with the command's name.
    @discardableResult
    func execute(
        _ command: String, _ arguments: JSONObject? = nil, descriptors: [Int32] = [], timeoutMilliseconds: Int? = nil
    ) async throws(ColdframeError) -> JSONValue {
        let limit = timeoutMilliseconds ?? (command.hasPrefix("query-") ? Self.answerTimeoutMilliseconds : nil)
        await untilOpen(deadline: limit.map { SystemClock.monotonicNanoseconds() + UInt64($0) * 1_000_000 })
        do {
            return try await client.execute(
                command, arguments, descriptors: descriptors, timeoutMilliseconds: limit)
        } catch {
            throw ColdframeError(.peer, "QEMU: \(command): \(error)")
        }
    }

    /// Runs a command of a client as it is.
    func passThrough(_ command: String, _ arguments: JSONObject?) async throws(QMPError) -> JSONValue {
        await untilOpen(deadline: nil)
        do {
            return try await client.execute(command, arguments)
        } catch {
            throw error.qmpError ?? QMPError(.genericError, "The guest does not answer: \(error)")
        }
    }

    func close() {
        closeForGood()
        client.close()
        pump?.cancel()
    }
}

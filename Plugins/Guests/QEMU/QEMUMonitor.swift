import ColdframeKit
import LinuxSystem
import QMPClient
import QMPWire

/// QMP with the guest's QEMU: commands with our errors, and events in their order on the actor.
@AgentActor
final class QEMUMonitor {
    private let client: QMPClient
    private var listeners: [UInt64: @AgentActor (JSONObject) -> Void] = [:]
    private var listenerCount: UInt64 = 0
    private var pump: Task<Void, Never>?
    private var closeAction: (@AgentActor () -> Void)?
    /// The connection has ended.
    private(set) var isClosed = false

    /// Connects as soon as QEMU listens. `giveUp` says why to stop trying, if there is a reason.
    static func connect(
        path: String, timeoutMilliseconds: Int, giveUp: () -> ColdframeError?
    ) async throws -> QEMUMonitor {
        let deadline = SystemClock.monotonicNanoseconds() + UInt64(timeoutMilliseconds) * 1_000_000
        while true {
            if let reason = giveUp() { throw reason }
            do {
                let client = try await BlockingPool.shared.run { () throws(QMPClientError) in
                    try QMPClient.connect(path: path)
                }
                let monitor = QEMUMonitor(client: client)
                try await client.negotiate(timeoutMilliseconds: timeoutMilliseconds)
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

    private init(client: QMPClient) {
        self.client = client
        // Taken before the first command, so that no event is missed.
        let events = client.events(limit: 65536)
        pump = Task { [weak self] in
            for await event in events { self?.deliver(event) }
            self?.closed()
        }
    }

    private func deliver(_ event: JSONObject) {
        for listener in listeners.values { listener(event) }
    }

    /// Calls `listener` for every event until `stopListening`.
    func listen(_ listener: @escaping @AgentActor (JSONObject) -> Void) -> UInt64 {
        listenerCount += 1
        listeners[listenerCount] = listener
        return listenerCount
    }

    func stopListening(_ key: UInt64) { listeners[key] = nil }

    /// Calls `action` once when the connection has ended, at once if it has.
    func onClosed(_ action: @escaping @AgentActor () -> Void) {
        if isClosed { action() } else { closeAction = action }
    }

    private func closed() {
        isClosed = true
        closeAction?()
        closeAction = nil
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
        do {
            return try await client.execute(
                command, arguments, descriptors: descriptors, timeoutMilliseconds: limit)
        } catch {
            throw ColdframeError(.peer, "QEMU: \(command): \(error)")
        }
    }

    /// Runs a command of a client as it is.
    func passThrough(_ command: String, _ arguments: JSONObject?) async throws(QMPError) -> JSONValue {
        do {
            return try await client.execute(command, arguments)
        } catch {
            throw error.qmpError ?? QMPError(.genericError, "The guest does not answer: \(error)")
        }
    }

    func close() {
        client.close()
        pump?.cancel()
    }
}

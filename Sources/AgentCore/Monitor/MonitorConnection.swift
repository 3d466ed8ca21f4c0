import ColdframeKit
import LinuxSystem
import Logging
import QMPWire

/// One client of a monitor, from its greeting to its end: parser, negotiated mode, the requests that wait, and what is
/// to be sent. The reader is the monitor's thread; nothing here blocks the actor.
final class MonitorConnection: Sendable {
    /// In-band requests that may wait; with out-of-band execution more, so that an urgent command can overtake them.
    static let requestLimit = (inBandOnly: 1, withOutOfBand: 8)
    private static let readByteCount = 64 << 10

    private struct State {
        var requests: [Result<JSONValue, QMPError>] = []
        /// The dispatcher works on a request of this client.
        var isBusy = false
        var isNegotiated = false
        var isOutOfBandEnabled = false
        var isClosed = false
    }

    let monitorID: String
    private let isPretty: Bool
    private let input: Descriptor
    private let output: Descriptor
    private let isSocket: Bool
    private let outgoing = OutgoingQueue()
    private let state = Locked(State())
    /// Signalled when there is room for a request, or none is needed any more.
    private let room = ConditionVariable()
    private let stopped: EventDescriptor
    private let logger: Logger

    /// - Parameter output: the same as `input` for a socket.
    init(
        monitorID: String, isPretty: Bool, input: Descriptor, output: Descriptor, isSocket: Bool, logger: Logger
    ) throws(SystemError) {
        self.monitorID = monitorID
        self.isPretty = isPretty
        self.input = input
        self.output = output
        self.isSocket = isSocket
        self.logger = logger
        stopped = try EventDescriptor()
    }

    // MARK: - The dispatcher's side

    var isNegotiated: Bool { state.withLock { $0.isNegotiated } }
    var isOutOfBandEnabled: Bool { state.withLock { $0.isOutOfBandEnabled } }
    var isClosed: Bool { state.withLock { $0.isClosed } }

    func negotiated(outOfBand: Bool) {
        state.withLock {
            $0.isNegotiated = true
            $0.isOutOfBandEnabled = outOfBand
        }
    }

    /// The oldest waiting request; the client is busy until `finishRequest`.
    func takeRequest() -> Result<JSONValue, QMPError>? {
        let request = state.withLock { state -> Result<JSONValue, QMPError>? in
            guard !state.isBusy, !state.isClosed, !state.requests.isEmpty else { return nil }
            state.isBusy = true
            return state.requests.removeFirst()
        }
        if request != nil { room.broadcast() }
        return request
    }

    func finishRequest() {
        state.withLock { $0.isBusy = false }
        room.broadcast()
    }

    func send(_ message: JSONValue) { send(encoded: JSONWriter.message(message, pretty: isPretty)) }

    /// An event goes to clients past the negotiation only.
    @AgentActor
    func sendEvent(_ event: EncodedMessage) {
        if isNegotiated { send(encoded: event.bytes(pretty: isPretty)) }
    }

    private func send(encoded: [UInt8]) {
        // A pipe or terminal cannot be asked without blocking.
        guard !outgoing.enqueue(encoded, sendNow: { isSocket ? output.sendNow($0) : 0 }) else { return }
        logger.warning(
            "monitor \(monitorID): the client does not read, \(OutgoingQueue.maximumByteCount >> 20) MiB wait; dropped")
        close()
    }

    // MARK: - Life

    /// Ends the connection; what was not sent is lost. Any thread.
    func close() {
        state.withLock {
            $0.isClosed = true
            $0.requests = []
        }
        outgoing.close()
        stopped.signal()
        // The peer may be gone already; what counts is that a blocked writer wakes.
        if isSocket { try? output.shutdown(.both) }
        room.broadcast()
    }

    /// Gives the client time to take what waits, then ends the connection. Blocks.
    func closeWhenSent(milliseconds: Int) {
        _ = outgoing.waitUntilEmpty(milliseconds: milliseconds)
        close()
    }

    /// Serves the client to its end. Blocks the monitor's thread.
    /// - Parameters:
    ///   - wake: tells the dispatcher that a request waits.
    ///   - outOfBand: carries out an `exec-oob` request at once.
    func serve(greeting: JSONValue, wake: () -> Void, outOfBand: (JSONValue) -> Void) {
        send(greeting)
        let writer: SystemThread.Handle
        do {
            writer = try SystemThread.start(name: "mon-write") { [self] in writeToEnd() }
        } catch {
            logger.error("monitor \(monitorID): \(error)")
            return close()
        }
        readToEnd(wake: wake, outOfBand: outOfBand)
        // What was asked before the end of the input is still answered, as far as the client takes it.
        finishInput()
        close()
        // A writer that blocks on a pipe cannot be woken; on a socket `close` has.
        if isSocket { writer.join() }
    }

    private func writeToEnd() {
        do throws(SystemError) {
            try outgoing.drain { (message) throws(SystemError) in
                if isSocket { try sendAll(message) } else { try output.writeAll(message) }
            } sent: {
                room.broadcast()
            }
        } catch {
            logger.debug("monitor \(monitorID): \(error)")
            close()
        }
    }

    /// `sendmsg(2)`, because it raises no SIGPIPE.
    private func sendAll(_ bytes: [UInt8]) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            done += try bytes.withUnsafeBufferPointer { bytes throws(SystemError) in
                let rest = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[done...])
                return try output.sendWithDescriptors(rest, [])
            }
        }
    }

    private func readToEnd(wake: () -> Void, outOfBand: (JSONValue) -> Void) {
        var parser = JSONParser()
        // Owned by this thread until the function ends.
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.readByteCount, alignment: 16)
        defer { buffer.deallocate() }
        do throws(SystemError) {
            while !isClosed {
                let events = try pollDescriptors(
                    [(input.raw, .readable), (stopped.raw, .readable)], timeoutMilliseconds: nil)
                if !events[1].isEmpty { return }
                let count = try input.read(into: buffer)
                if count == 0 { return }
                parser.feed(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { request in
                    accept(request, wake: wake, outOfBand: outOfBand)
                }
            }
        } catch {
            logger.debug("monitor \(monitorID): \(error)")
        }
    }

    /// Queues a request, or has it carried out at once. Blocks while the client has enough under way.
    private func accept(_ request: Result<JSONValue, QMPError>, wake: () -> Void, outOfBand: (JSONValue) -> Void) {
        room.wait { hasRoom }
        let isOutOfBand = isOutOfBandEnabled
        if isOutOfBand, case .success(let envelope) = request, let members = envelope.objectValue,
            members.contains("exec-oob"), !members.contains("execute")
        {
            return outOfBand(envelope)
        }
        state.withLock { if !$0.isClosed { $0.requests.append(request) } }
        wake()
    }

    private var hasRoom: Bool {
        if outgoing.isCrowded { return false }
        return state.withLock { state in
            if state.isClosed { return true }
            if state.isOutOfBandEnabled { return state.requests.count < Self.requestLimit.withOutOfBand }
            return !state.isBusy && state.requests.count < Self.requestLimit.inBandOnly
        }
    }

    /// On a pipe (stdio) the output may outlive the input: `echo … | coldframed` gets its answers. On a socket the end
    /// of the input is the end of the client, as in QEMU.
    private func finishInput() {
        guard !isSocket else { return }
        room.wait { state.withLock { $0.isClosed || ($0.requests.isEmpty && !$0.isBusy) } }
        _ = outgoing.waitUntilEmpty(milliseconds: 1000)
    }
}

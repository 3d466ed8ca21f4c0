import LinuxSystem
import QMPWire

/// The state of a client's connection: what the reader thread and the callers share.
///
/// The reader holds it, not the `QMPClient`, so that a forgotten client ends its connection.
final class QMPConnection: Sendable {
    typealias Outcome = Result<JSONValue, QMPClientError>

    private struct State {
        var nextID: Int64 = 1
        var waiters: [Int64: @Sendable (Outcome) -> Void] = [:]
        var greeting: JSONObject?
        var greetingWaiters: [Int64: @Sendable (Outcome) -> Void] = [:]
        var streams: [Int64: AsyncStream<JSONObject>.Continuation] = [:]
        var closedReason: String?
    }

    private static let readByteCount = 64 << 10

    private let descriptor: Descriptor
    private let limits: JSONParser.Limits
    private let onEvent: (@Sendable (JSONObject) -> Void)?
    private let onClose: (@Sendable (String) -> Void)?
    private let state = Locked(State())
    /// Held while a message is sent, so that messages do not mix.
    private let sending = PlainMutex()

    init(
        descriptor: Descriptor, limits: JSONParser.Limits, onEvent: (@Sendable (JSONObject) -> Void)?,
        onClose: (@Sendable (String) -> Void)?
    ) {
        self.descriptor = descriptor
        self.limits = limits
        self.onEvent = onEvent
        self.onClose = onClose
    }

    var closedReason: String? { state.withLock { $0.closedReason } }

    // MARK: - Callers

    /// Calls `body` once: with the greeting, or when the connection ends. The key is for `abandonGreeting`.
    func whenGreeted(_ body: @escaping @Sendable (Outcome) -> Void) -> Int64 {
        let (key, known) = state.withLock { state -> (Int64, Outcome?) in
            let key = Self.takeID(&state)
            if let greeting = state.greeting { return (key, .success(.object(greeting))) }
            if let reason = state.closedReason { return (key, .failure(.closed(reason: reason))) }
            state.greetingWaiters[key] = body
            return (key, nil)
        }
        if let known { body(known) }
        return key
    }

    func abandonGreeting(_ key: Int64, _ error: QMPClientError) {
        state.withLock { $0.greetingWaiters.removeValue(forKey: key) }?(.failure(error))
    }

    /// An id for a command; `body` is called once, with its answer or what stands in its way.
    func expect(_ body: @escaping @Sendable (Outcome) -> Void) -> Int64 {
        let (id, reason) = state.withLock { state -> (Int64, String?) in
            let id = Self.takeID(&state)
            if state.closedReason == nil { state.waiters[id] = body }
            return (id, state.closedReason)
        }
        if let reason { body(.failure(.closed(reason: reason))) }
        return id
    }

    /// The answer is no longer waited for; a late one is dropped.
    func abandon(_ id: Int64, _ error: QMPClientError) {
        state.withLock { $0.waiters.removeValue(forKey: id) }?(.failure(error))
    }

    private static func takeID(_ state: inout State) -> Int64 {
        defer { state.nextID += 1 }
        return state.nextID
    }

    /// Sends a command whose id is expected. Blocks while the peer does not read, up to the socket's send timeout; a
    /// message that was sent in part ends the connection.
    func send(_ request: QMPRequest, id: Int64, descriptors: [Int32]) {
        // Abandoned or closed while it waited for the thread: not sent.
        guard state.withLock({ $0.waiters[id] != nil }) else { return }
        let bytes = JSONWriter.message(request.json)
        do throws(SystemError) {
            try sending.withLock { () throws(SystemError) in
                try sendAll(bytes, descriptors)
            }
        } catch {
            close(reason: "sending '\(request.command)' failed: \(error.reason)")
        }
    }

    /// The descriptors go with the first byte. `sendmsg(2)` for the rest as well: it raises no SIGPIPE.
    private func sendAll(_ bytes: [UInt8], _ descriptors: [Int32]) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            done += try bytes.withUnsafeBufferPointer { bytes throws(SystemError) in
                let rest = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[done...])
                return try descriptor.sendWithDescriptors(rest, done == 0 ? descriptors : [])
            }
        }
    }

    func addStream(_ continuation: AsyncStream<JSONObject>.Continuation) {
        let key = state.withLock { state -> Int64? in
            guard state.closedReason == nil else { return nil }
            let key = Self.takeID(&state)
            state.streams[key] = continuation
            return key
        }
        guard let key else { return continuation.finish() }
        continuation.onTermination = { [weak self] _ in
            self?.state.withLock { _ = $0.streams.removeValue(forKey: key) }
        }
    }

    /// Ends the connection; every waiter hears of it. The descriptor itself is closed by the reader.
    func close(reason: String) {
        let ended = state.withLock { state -> State? in
            guard state.closedReason == nil else { return nil }
            state.closedReason = reason
            let ended = state
            state.waiters = [:]
            state.greetingWaiters = [:]
            state.streams = [:]
            return ended
        }
        guard let ended else { return }
        try? descriptor.shutdown(.both)  // The peer may be gone already; what counts is that the reader wakes.
        let failure = Outcome.failure(.closed(reason: reason))
        for (_, waiter) in ended.waiters.sorted(by: { $0.key < $1.key }) { waiter(failure) }
        for waiter in ended.greetingWaiters.values { waiter(failure) }
        for stream in ended.streams.values { stream.finish() }
        onClose?(reason)
    }

    // MARK: - The reader

    /// Reads until the connection ends; the body of the reader thread.
    func readToEnd() {
        var parser = JSONParser(limits: limits)
        // Owned by this thread until the function ends.
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.readByteCount, alignment: 16)
        defer { buffer.deallocate() }
        var reason = "the peer closed it"
        while closedReason == nil {
            do throws(SystemError) {
                let count = try descriptor.read(into: buffer)
                if count == 0 { break }
                var problem: String?
                parser.feed(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { outcome in
                    switch outcome {
                    case .success(let message): receive(message)
                    case .failure(let error): problem = problem ?? error.description
                    }
                }
                if let problem {
                    reason = "the peer sent what is no QMP: \(problem)"
                    break
                }
            } catch {
                reason = error.reason
                break
            }
        }
        close(reason: reason)
        // Under the lock no sender is in a call on the number.
        sending.withLock { descriptor.close() }
    }

    private func receive(_ message: JSONValue) {
        guard let message = message.objectValue else { return }
        if message.contains("event") {
            onEvent?(message)
            for stream in state.withLock({ Array($0.streams.values) }) { stream.yield(message) }
        } else if let greeting = message["QMP"]?.objectValue {
            greet(greeting)
        } else if let result = message["return"] {
            answer(message["id"], .success(result))
        } else if let error = message["error"].flatMap(QMPError.init(json:)) {
            answer(message["id"], .failure(.refused(error)))
        }
    }

    private func greet(_ greeting: JSONObject) {
        let waiters = state.withLock { state in
            state.greeting = greeting
            defer { state.greetingWaiters = [:] }
            return state.greetingWaiters.values.map { $0 }
        }
        for waiter in waiters { waiter(.success(.object(greeting))) }
    }

    /// An answer without an id (a peer that could not read the command) is that of the oldest command.
    private func answer(_ id: JSONValue?, _ outcome: Outcome) {
        let waiter = state.withLock { state -> (@Sendable (Outcome) -> Void)? in
            guard let key = id == nil ? state.waiters.keys.min() : id?.intValue else { return nil }
            return state.waiters.removeValue(forKey: key)
        }
        waiter?(outcome)
    }
}

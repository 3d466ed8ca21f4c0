import LinuxSystem
import QMPWire

/// A QMP client: speaks to a guest's QEMU, to the agent, to qemu-storage-daemon.
///
/// One blocking reader thread; answers are matched by id, so any number of commands may be under way, from any tasks
/// and threads. With the last reference the connection ends.
///
/// Events go to `onEvent` on the reader thread, in order and before any answer that came after them; a handler that
/// blocks holds up the connection, and must not wait for an answer of it. `onClose` is called once, with the reason.
public final class QMPClient: Sendable {
    private let connection: QMPConnection

    /// A peer that does not read for so long is given up.
    private static let sendTimeoutMilliseconds = 30_000

    /// Takes a connected stream socket over and starts to read.
    /// - Throws: `unreachable` if no thread can be started.
    public init(
        descriptor: Descriptor, limits: JSONParser.Limits = .init(),
        onEvent: (@Sendable (JSONObject) -> Void)? = nil, onClose: (@Sendable (String) -> Void)? = nil
    ) throws(QMPClientError) {
        let connection = QMPConnection(descriptor: descriptor, limits: limits, onEvent: onEvent, onClose: onClose)
        self.connection = connection
        do throws(SystemError) {
            try descriptor.setSendTimeout(milliseconds: Self.sendTimeoutMilliseconds)
            _ = try SystemThread.start(name: "qmp-client") { connection.readToEnd() }
        } catch {
            throw .unreachable(error)
        }
    }

    deinit { connection.close(reason: "the client is gone") }

    /// Connects to the unix socket at `path`.
    public static func connect(
        path: String, limits: JSONParser.Limits = .init(), onEvent: (@Sendable (JSONObject) -> Void)? = nil,
        onClose: (@Sendable (String) -> Void)? = nil
    ) throws(QMPClientError) -> QMPClient {
        let descriptor: Descriptor
        do throws(SystemError) {
            descriptor = try UnixSocket.connect(path: path)
        } catch {
            throw .unreachable(error)
        }
        return try QMPClient(descriptor: descriptor, limits: limits, onEvent: onEvent, onClose: onClose)
    }

    /// Why the connection ended; nil while it lasts.
    public var closedReason: String? { connection.closedReason }

    /// Ends the connection. What is under way fails with `closed`.
    public func close() { connection.close(reason: "closed by this side") }

    /// The events from now on, as they came, until the connection ends. A consumer that lags loses the oldest beyond
    /// `limit`.
    public func events(limit: Int = 4096) -> AsyncStream<JSONObject> {
        AsyncStream(bufferingPolicy: .bufferingNewest(limit)) { connection.addStream($0) }
    }

    // MARK: - With concurrency

    /// Waits for the greeting and ends the negotiation, once per connection. Returns the greeting (`version`,
    /// `capabilities`).
    /// - Parameter outOfBand: ask for `oob`; refused by a peer that does not offer it.
    @discardableResult
    public func negotiate(
        outOfBand: Bool = false, timeoutMilliseconds: Int? = nil
    ) async throws(QMPClientError) -> JSONObject {
        let outcome = await withCheckedContinuation {
            (continuation: CheckedContinuation<QMPConnection.Outcome, Never>) in
            let key = connection.whenGreeted { continuation.resume(returning: $0) }
            guard let timeoutMilliseconds else { return }
            Self.after(timeoutMilliseconds) { [weak connection] in
                connection?.abandonGreeting(key, Self.noGreeting(timeoutMilliseconds))
            }
        }
        let greeting = try outcome.get().objectValue ?? [:]
        _ = try await execute(
            "qmp_capabilities", Self.capabilities(outOfBand: outOfBand), timeoutMilliseconds: timeoutMilliseconds)
        return greeting
    }

    /// Sends a command and waits for its answer. The cancellation of the task does not end the wait: the command runs.
    /// - Parameters:
    ///   - descriptors: go along with the command (SCM_RIGHTS), for `getfd` and `add-fd`. They stay the caller's and
    ///     may be closed when this returns.
    ///   - outOfBand: as `exec-oob`; the peer must have agreed to it.
    public func execute(
        _ command: String, _ arguments: JSONObject? = nil, descriptors: [Int32] = [], outOfBand: Bool = false,
        timeoutMilliseconds: Int? = nil
    ) async throws(QMPClientError) -> JSONValue {
        let connection = connection
        // Copies, because a timeout may return before the sender has come to its turn.
        let copies: [Descriptor]
        do throws(SystemError) {
            copies = try descriptors.map(Self.copy)
        } catch {
            throw .unreachable(error)
        }
        let outcome = await withCheckedContinuation {
            (continuation: CheckedContinuation<QMPConnection.Outcome, Never>) in
            let id = connection.expect { continuation.resume(returning: $0) }
            let request = Self.request(command, arguments, outOfBand, id)
            BlockingPool.shared.submit {
                connection.send(request, id: id, descriptors: copies.map(\.raw))
                for copy in copies { copy.close() }
            }
            guard let timeoutMilliseconds else { return }
            Self.after(timeoutMilliseconds) { [weak connection] in
                connection?.abandon(id, .timedOut(command: command, milliseconds: timeoutMilliseconds))
            }
        }
        return try outcome.get()
    }

    private static func copy(_ number: Int32) throws(SystemError) -> Descriptor {
        let borrowed = Descriptor(owning: number)
        defer { _ = borrowed.release() }
        return try borrowed.duplicate()
    }

    private static func after(_ milliseconds: Int, _ body: @escaping @Sendable () -> Void) {
        Task {
            try? await Task.sleep(for: .milliseconds(milliseconds))  // Nobody cancels it.
            body()
        }
    }

    // MARK: - Blocking

    /// `negotiate` for code without concurrency.
    @discardableResult
    public func negotiateBlocking(
        outOfBand: Bool = false, timeoutMilliseconds: Int? = nil
    ) throws(QMPClientError) -> JSONObject {
        let box = OutcomeBox()
        let key = connection.whenGreeted { box.fill($0) }
        let outcome = box.wait(timeoutMilliseconds) {
            connection.abandonGreeting(key, Self.noGreeting(timeoutMilliseconds ?? 0))
        }
        let greeting = try outcome.get().objectValue ?? [:]
        _ = try executeBlocking(
            "qmp_capabilities", Self.capabilities(outOfBand: outOfBand), timeoutMilliseconds: timeoutMilliseconds)
        return greeting
    }

    /// `execute` for code without concurrency: blocks the thread. Not from `onEvent`.
    public func executeBlocking(
        _ command: String, _ arguments: JSONObject? = nil, descriptors: [Int32] = [], outOfBand: Bool = false,
        timeoutMilliseconds: Int? = nil
    ) throws(QMPClientError) -> JSONValue {
        let box = OutcomeBox()
        let id = connection.expect { box.fill($0) }
        connection.send(Self.request(command, arguments, outOfBand, id), id: id, descriptors: descriptors)
        return try box.wait(timeoutMilliseconds) {
            connection.abandon(id, .timedOut(command: command, milliseconds: timeoutMilliseconds ?? 0))
        }.get()
    }

    private static func request(
        _ command: String, _ arguments: JSONObject?, _ outOfBand: Bool, _ id: Int64
    ) -> QMPRequest {
        QMPRequest(
            kind: outOfBand ? .executeOutOfBand : .execute, command: command, arguments: arguments ?? [:],
            id: .integer(id))
    }

    private static func capabilities(outOfBand: Bool) -> JSONObject? {
        outOfBand ? ["enable": ["oob"]] : nil
    }

    private static func noGreeting(_ milliseconds: Int) -> QMPClientError {
        .timedOut(command: "greeting", milliseconds: milliseconds)
    }
}

/// Where a blocked thread finds an outcome.
private final class OutcomeBox: Sendable {
    private let outcome = Locked<QMPConnection.Outcome?>(nil)
    private let changed = ConditionVariable()

    func fill(_ value: QMPConnection.Outcome) {
        outcome.withLock { $0 = value }
        changed.broadcast()
    }

    /// Waits; after the timeout `expire` sees to it that the box is filled, if nobody else was faster.
    func wait(_ milliseconds: Int?, expire: () -> Void) -> QMPConnection.Outcome {
        if let milliseconds, !changed.waitFor(milliseconds: milliseconds, { isFull }) { expire() }
        changed.wait { isFull }
        return outcome.withLock { $0 } ?? .failure(.closed(reason: "no outcome"))
    }

    private var isFull: Bool { outcome.withLock { $0 != nil } }
}

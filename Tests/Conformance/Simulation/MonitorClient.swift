import ColdframeKit
import LinuxSystem
import QMPWire

/// A monitor as a client has it: sends one command at a time and gets all that came up to its answer, in the order in which
/// it came. (`QMPClient` tells events and answers apart, and so not which came first.)
final class MonitorClient: Sendable {
    struct Answer: Sendable {
        /// Those before the answer.
        let events: [JSONObject]
        let result: Result<JSONValue, QMPError>
    }

    private let socket: Descriptor
    private let inbox = MonitorInbox()
    private let reader: SystemThread.Handle

    /// Connects to the monitor at a path.
    init(path: String) throws {
        let (socket, inbox) = (try UnixSocket.connect(path: path), inbox)
        self.socket = socket
        reader = try SystemThread.start(name: "sim-monitor") { inbox.readToEnd(of: socket) }
    }

    /// Waits for the greeting and ends the negotiation. Once, before the first command.
    func negotiate() async throws {
        _ = try await inbox.answer()
        _ = try await call("qmp_capabilities", [:])
    }

    /// Throws if the connection ends.
    func call(_ command: String, _ arguments: JSONObject) async throws -> Answer {
        let bytes = JSONWriter.message(["execute": .string(command), "arguments": .object(arguments)])
        try await BlockingPool.shared.run { [socket] in
            var rest = bytes[...]
            while !rest.isEmpty {
                rest = rest.dropFirst(try rest.withUnsafeBytes { try socket.sendWithDescriptors($0, []) })
            }
        }
        return try await inbox.answer()
    }

    /// Ends the connection. Blocks for a moment.
    func close() {
        try? socket.shutdown(.both)
        reader.join()
        socket.close()
    }
}

/// What has come from a monitor and was not taken yet. The reader's thread puts, a task takes.
private final class MonitorInbox: Sendable {
    private struct State {
        var messages: [JSONObject] = []
        var isClosed = false
        var waiter: CheckedContinuation<Void, Never>?
    }

    private let state = Locked(State())

    /// Suspends until an answer has come.
    func answer() async throws -> MonitorClient.Answer {
        while true {
            if let answer = try take() { return answer }
            await withCheckedContinuation { continuation in
                let mustWait = state.withLock { state in
                    let mustWait = !state.isClosed && !state.messages.contains(where: Self.isAnswer)
                    if mustWait { state.waiter = continuation }
                    return mustWait
                }
                if !mustWait { continuation.resume() }
            }
        }
    }

    /// nil if it has not come yet.
    private func take() throws -> MonitorClient.Answer? {
        let taken = try state.withLock { state -> (events: [JSONObject], answer: JSONObject)? in
            guard let index = state.messages.firstIndex(where: Self.isAnswer) else {
                guard !state.isClosed else { throw ColdframeError(.io, "The monitor has ended") }
                return nil
            }
            let taken = (Array(state.messages[..<index]), state.messages[index])
            state.messages.removeFirst(index + 1)
            return taken
        }
        guard let (events, answer) = taken else { return nil }
        if let error = answer["error"].flatMap(QMPError.init(json:)) {
            return MonitorClient.Answer(events: events, result: .failure(error))
        }
        return MonitorClient.Answer(events: events, result: .success(answer["return"] ?? .null))
    }

    private static func isAnswer(_ message: JSONObject) -> Bool { !message.contains("event") }

    /// The body of the reader's thread.
    func readToEnd(of socket: Descriptor) {
        var parser = JSONParser()
        // Owned by this thread until the function ends.
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { buffer.deallocate() }
        while true {
            let count = (try? socket.read(into: buffer)) ?? 0
            var messages: [JSONObject] = []
            parser.feed(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { outcome in
                if case .success(.object(let message)) = outcome { messages.append(message) }
            }
            put(messages, isClosed: count == 0)
            if count == 0 { return }
        }
    }

    private func put(_ messages: [JSONObject], isClosed: Bool) {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            state.messages += messages
            if isClosed { state.isClosed = true }
            guard isClosed || messages.contains(where: Self.isAnswer) else { return nil }
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume()
    }
}

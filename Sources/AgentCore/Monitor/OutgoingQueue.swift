import LinuxSystem
import QMPWire

/// What waits to be sent to one client, bounded, with a writer thread of its own: who enqueues never blocks.
final class OutgoingQueue: Sendable {
    private struct State {
        var messages: [[UInt8]] = []
        /// Messages before this position are sent.
        var first = 0
        /// Bytes that wait or are being sent.
        var byteCount = 0
        var isClosed = false
    }

    /// What may wait for a client that does not read. A message beyond it ends the connection, for there is no event
    /// that could be left out. A single message may be larger.
    static let maximumByteCount = 16 << 20
    /// From here on no commands are read from the client, so that only events add to what waits.
    static let crowdedByteCount = 1 << 20

    private let state = Locked(State())
    private let changed = ConditionVariable()

    /// False if the client is too far behind; the message is not queued. A closed queue takes and drops everything.
    ///
    /// Where nothing waits `sendNow` may take the message, or a part of it, without blocking: a client that reads costs no
    /// change of threads.
    func enqueue(_ message: [UInt8], sendNow: (UnsafeRawBufferPointer) -> Int) -> Bool {
        var isSent = false
        let isTaken = state.withLock { state in
            if state.isClosed { return true }
            if state.byteCount > 0, state.byteCount + message.count > Self.maximumByteCount { return false }
            let count = state.byteCount == 0 ? message.withUnsafeBytes(sendNow) : 0
            isSent = count == message.count
            if !isSent {
                state.messages.append(count == 0 ? message : Array(message[count...]))
                state.byteCount += message.count - count
            }
            return true
        }
        if !isSent { changed.broadcast() }
        return isTaken
    }

    var isCrowded: Bool { state.withLock { $0.byteCount > Self.crowdedByteCount && !$0.isClosed } }
    var isEmpty: Bool { state.withLock { $0.byteCount == 0 || $0.isClosed } }

    /// Drops what waits.
    func close() {
        state.withLock {
            $0.isClosed = true
            $0.messages = []
            $0.first = 0
        }
        changed.broadcast()
    }

    /// The body of the writer thread: hands every message to `send` until the queue is closed or `send` fails.
    /// `sent` is called after each, without the lock.
    func drain(send: ([UInt8]) throws(SystemError) -> Void, sent: () -> Void) throws(SystemError) {
        while true {
            var next: [UInt8]?
            var isClosed = false
            changed.wait {
                state.withLock { state in
                    next = Self.takeFirst(&state)
                    isClosed = state.isClosed
                    return next != nil || isClosed
                }
            }
            guard let message = next, !isClosed else { return }
            try send(message)
            state.withLock { $0.byteCount -= message.count }
            sent()
            changed.broadcast()
        }
    }

    /// Waits until everything is sent; false after the timeout.
    func waitUntilEmpty(milliseconds: Int) -> Bool {
        changed.waitFor(milliseconds: milliseconds) { isEmpty }
    }

    private static func takeFirst(_ state: inout State) -> [UInt8]? {
        guard state.first < state.messages.count else { return nil }
        defer {
            state.first += 1
            if state.first == state.messages.count {
                state.messages.removeAll(keepingCapacity: state.messages.count <= 256)
                state.first = 0
            }
        }
        let message = state.messages[state.first]
        state.messages[state.first] = []
        return message
    }
}

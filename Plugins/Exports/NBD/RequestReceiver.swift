import LinuxSystem
import Synchronization

/// A request as it came in.
struct ReceivedRequest {
    var header: WireRequest
    /// The payload of a write, to be given back to the pool.
    var payload: WorkBuffer?
    /// Set if the payload was thrown away because it was too long.
    var isOversized = false
}

/// Takes requests off a socket, one worker at a time.
///
/// Headers are read many at once through a small buffer, so that a client with many requests in flight costs less than
/// one system call per request; the payload of a write goes straight into its own buffer, but for what the small one
/// holds of it.
final class RequestReceiver: @unchecked Sendable {
    // Unchecked: `cursor` and `bytes` are touched under `lock` only.
    private let socket: Descriptor
    private let buffers: BufferPool
    private let lock = PlainMutex()
    /// Workers that wait for the lock.
    private let waitingCount = Atomic<Int>(0)
    private let isEnded = Atomic<Bool>(false)
    private let bytes: UnsafeMutableRawPointer
    private let cursor: UnsafeMutablePointer<Cursor>

    private struct Cursor {
        var start = 0
        var end = 0
        var count: Int { end - start }
    }

    private static let byteCount = 16 << 10
    private static let idleMilliseconds = 1000

    init(socket: Descriptor, buffers: BufferPool) {
        self.socket = socket
        self.buffers = buffers
        bytes = .allocate(byteCount: Self.byteCount, alignment: 64)
        cursor = .allocate(capacity: 1)
        cursor.initialize(to: Cursor())
    }

    deinit {
        bytes.deallocate()
        cursor.deallocate()
    }

    /// Nobody takes another request; those taken are carried out. Whoever blocks in the socket must be woken apart.
    func end() { isEnded.store(true, ordering: .releasing) }

    /// The next request, or nil when there is none any more: the client said goodbye, went away or broke the protocol.
    /// `startFollower` is called when nobody else is there to take the request after this one.
    func next(startFollower: () -> Void) -> ReceivedRequest? {
        waitingCount.add(1, ordering: .relaxed)
        lock.lock()
        defer { lock.unlock() }
        waitingCount.subtract(1, ordering: .relaxed)
        guard !isEnded.load(ordering: .acquiring), let received = receive() else {
            end()
            return nil
        }
        if waitingCount.load(ordering: .relaxed) == 0 { startFollower() }
        return received
    }

    private func receive() -> ReceivedRequest? {
        guard fill(WireRequest.byteCount), let header = WireRequest(bytes + cursor.pointee.start) else { return nil }
        cursor.pointee.start += WireRequest.byteCount
        switch header.command {
        case .disconnect: return nil
        case .write: return receiveWrite(header)
        default: return ReceivedRequest(header: header)
        }
    }

    private func receiveWrite(_ header: WireRequest) -> ReceivedRequest? {
        let count = Int(header.length)
        guard count <= WireLimit.payloadByteCount else {
            return skip(count) ? ReceivedRequest(header: header, isOversized: true) : nil
        }
        let payload = buffers.take(count)
        let early = min(count, cursor.pointee.count)
        payload.payload.copyMemory(from: bytes + cursor.pointee.start, byteCount: early)
        cursor.pointee.start += early
        let rest = UnsafeMutableRawBufferPointer(start: payload.payload + early, count: count - early)
        guard rest.isEmpty || (try? socket.readFull(into: rest)) == rest.count else { return nil }
        return ReceivedRequest(header: header, payload: payload)
    }

    /// Makes at least `count` bytes available at the cursor. False at the end of the stream.
    private func fill(_ count: Int) -> Bool {
        while cursor.pointee.count < count {
            if cursor.pointee.start > 0 {
                let held = cursor.pointee.count
                bytes.copyMemory(from: bytes + cursor.pointee.start, byteCount: held)
                cursor.pointee = Cursor(start: 0, end: held)
            }
            if cursor.pointee.count == 0 { giveBackMemoryIfIdle() }
            let end = cursor.pointee.end
            let room = UnsafeMutableRawBufferPointer(start: bytes + end, count: Self.byteCount - end)
            guard let got = try? socket.read(into: room), got > 0 else { return false }
            cursor.pointee.end += got
        }
        return true
    }

    private func giveBackMemoryIfIdle() {
        // Costs a system call only where requests are large.
        guard buffers.hasLarge,
            (try? socket.poll(for: .readable, timeoutMilliseconds: Self.idleMilliseconds))?.isEmpty == true
        else { return }
        buffers.trim()
    }

    private func skip(_ byteCount: Int) -> Bool {
        var left = byteCount
        while left > 0 {
            guard fill(1) else { return false }
            let step = min(left, cursor.pointee.count)
            cursor.pointee.start += step
            left -= step
        }
        return true
    }
}

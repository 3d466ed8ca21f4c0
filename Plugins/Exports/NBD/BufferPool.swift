import LinuxSystem

/// Memory for the payload of one request, with room for the head of its reply in front and for the heads of further
/// chunks behind, so that a whole reply is one contiguous piece and one system call.
final class WorkBuffer: @unchecked Sendable {
    // Unchecked: one worker has it at a time; the pool's lock passes it on.

    /// Bytes in front of the payload; a page, so that the payload is aligned for direct I/O.
    static let headroom = 4096
    /// Bytes behind it: heads of the chunks of one reply.
    static let tailroom = 4096

    /// Bytes of payload that fit.
    let capacity: Int
    let payload: UnsafeMutableRawPointer
    private let base: UnsafeMutableRawPointer

    init(capacity: Int) {
        self.capacity = capacity
        base = .allocate(byteCount: Self.headroom + capacity + Self.tailroom, alignment: 4096)
        payload = base + Self.headroom
    }

    deinit { base.deallocate() }
}

/// The buffers of one connection: no more than it has workers, the one used last given out first, since it is in the
/// processor's cache.
///
/// A buffer grows to the largest request, so a connection holds at most `workers × 32 MiB` while its client asks for
/// that much, and at most `workers × 256 KiB` once it has been quiet for a second.
final class BufferPool: Sendable {
    /// Smallest buffer.
    static let smallest = 64 << 10
    /// Buffers up to this size are kept by an idle connection.
    static let keptWhenIdle = 256 << 10

    private struct State {
        var free: [WorkBuffer] = []
        var largeCount = 0
    }
    private let state: Locked<State>
    private let limit: Int

    /// - Parameter limit: buffers that are kept.
    init(limit: Int) {
        self.limit = limit
        var initial = State()
        initial.free.reserveCapacity(limit)
        state = Locked(initial)
    }

    /// A buffer with room for `byteCount` bytes of payload, which is at most `WireLimit.payloadByteCount`.
    func take(_ byteCount: Int) -> WorkBuffer {
        let found = state.withLock { state -> WorkBuffer? in
            guard let index = state.free.lastIndex(where: { $0.capacity >= byteCount }) else {
                // The one that is replaced must not be kept as well.
                if let dropped = state.free.popLast(), dropped.capacity > Self.keptWhenIdle { state.largeCount -= 1 }
                return nil
            }
            let buffer = state.free.remove(at: index)
            if buffer.capacity > Self.keptWhenIdle { state.largeCount -= 1 }
            return buffer
        }
        if let found { return found }
        var capacity = Self.smallest
        while capacity < byteCount { capacity *= 2 }
        return WorkBuffer(capacity: capacity)
    }

    func give(_ buffer: WorkBuffer) {
        state.withLock { state in
            guard state.free.count < limit else { return }
            state.free.append(buffer)
            if buffer.capacity > Self.keptWhenIdle { state.largeCount += 1 }
        }
    }

    /// Holds memory that an idle connection should give back.
    var hasLarge: Bool { state.withLock { $0.largeCount > 0 } }

    /// Gives large buffers back.
    func trim() {
        state.withLock { state in
            state.free.removeAll { $0.capacity > Self.keptWhenIdle }
            state.largeCount = 0
        }
    }
}

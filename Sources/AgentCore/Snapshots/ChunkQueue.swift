import ColdframeKit
import LinuxSystem

/// A piece of a stream on its way from one thread to another.
final class Chunk: @unchecked Sendable {
    // Unchecked: a chunk belongs to one thread at a time, which the queue hands on.
    let buffer: UnsafeMutableRawBufferPointer
    var byteCount = 0

    init(capacity: Int) {
        buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 4096)
    }

    deinit { buffer.deallocate() }

    var filled: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer[..<byteCount]) }
}

/// Chunks between a reader and a writer, bounded in memory.
///
/// While it is held, memory takes what comes, within a wider bound, and the writer gets nothing: for the moment in which a
/// guest stands still until all that it has left is taken, and in which the disk has other things to do.
final class ChunkQueue: Sendable {
    private let state: Locked<State>
    private let changed = ConditionVariable()
    private let chunkByteCount: Int

    private struct State {
        var limit: Int
        var isHeld = false
        var allocated = 0
        var empty: [Chunk] = []
        var full: [Chunk] = []
        /// Nothing comes any more: the stream's end, or why there is none.
        var end: Result<Void, ColdframeError>?
        /// The writer has given up.
        var isAbandoned = false
    }

    init(chunkByteCount: Int, limit: Int) {
        self.chunkByteCount = chunkByteCount
        state = Locked(State(limit: limit))
    }

    /// Gives the writer nothing until `letGo`, or until there are as many chunks, which are the limit from now on.
    func hold(limit: Int) {
        state.withLock { state in
            state.isHeld = true
            state.limit = max(state.limit, limit)
        }
        changed.broadcast()
    }

    /// Idempotent, also without a hold.
    func letGo() {
        state.withLock { $0.isHeld = false }
        changed.broadcast()
    }

    // MARK: The reader's side

    /// An empty chunk, as soon as there is room; nil when the writer has given up.
    func takeEmpty() -> Chunk? {
        var taken: Chunk?
        var isFull = false
        changed.wait {
            self.state.withLock { state in
                if state.isAbandoned { return true }
                if let chunk = state.empty.popLast() {
                    taken = chunk
                } else if state.allocated < state.limit {
                    state.allocated += 1
                    taken = Chunk(capacity: self.chunkByteCount)
                } else if state.isHeld {
                    state.isHeld = false
                    isFull = true
                }
                return taken != nil || isFull
            }
        }
        if isFull {
            changed.broadcast()
            return takeEmpty()
        }
        taken?.byteCount = 0
        return taken
    }

    func putFull(_ chunk: Chunk) {
        state.withLock { $0.full.append(chunk) }
        changed.broadcast()
    }

    func end(_ result: Result<Void, ColdframeError>) {
        state.withLock { $0.end = result }
        changed.broadcast()
    }

    /// Blocks until the queue is not held; a hold that lasts longer is ended.
    func endHold(afterMilliseconds limit: Int) {
        _ = changed.waitFor(milliseconds: limit) { self.state.withLock { !$0.isHeld } }
        letGo()
    }

    // MARK: The writer's side

    /// The next chunk in order, once the queue is not held; nil at the stream's end.
    func takeFull() throws(ColdframeError) -> Chunk? {
        var taken: Chunk?
        var end: Result<Void, ColdframeError>?
        changed.wait {
            self.state.withLock { state in
                // After a failure what was read is of no use.
                if case .failure = state.end {
                    end = state.end
                } else if state.isHeld {
                    return false
                } else if !state.full.isEmpty {
                    taken = state.full.removeFirst()
                } else {
                    end = state.end
                }
                return taken != nil || end != nil
            }
        }
        try end?.get()
        return taken
    }

    func putEmpty(_ chunk: Chunk) {
        state.withLock { $0.empty.append(chunk) }
        changed.broadcast()
    }

    /// The reader is not to wait for room any more.
    func abandon() {
        state.withLock { $0.isAbandoned = true }
        changed.broadcast()
    }
}

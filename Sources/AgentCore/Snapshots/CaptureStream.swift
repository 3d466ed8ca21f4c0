import CChecksum
import ColdframeKit
import LinuxSystem
import Synchronization

/// Moves a guest's RAM from the capture's stream into the image: one thread reads, one writes, from the first byte to the
/// last.
///
/// What comes before the guest stops can be flushed as it comes: the disk then has little left to write when the stop
/// comes, for whose flushes the guest waits.
final class CaptureStream: Sendable {
    private let source: Descriptor
    private let sink: any VMStateWriter
    /// Makes what was written durable; nil if that is not called for.
    private let flush: (@Sendable () throws(ColdframeError) -> Void)?
    /// Not after the stop.
    private let flushesAhead = Atomic(true)
    private let stopSignal: EventDescriptor
    private let state = Locked(State())
    private let receivedCount = Atomic<UInt64>(0)

    private struct State {
        var tail: [UInt8] = []
        var result: Result<SetRecord.State, ColdframeError>?
        var waiters: [CheckedContinuation<Result<SetRecord.State, ColdframeError>, Never>] = []
    }

    /// Large, so that the image sees few and long writes; smaller where a flush follows each.
    private static let chunkByteCount = 4 << 20
    private static let flushedChunkByteCount = 512 << 10
    /// What is read ahead of the image: little where QEMU is to send no faster than the disk takes it; much while the guest
    /// stands still.
    private static let queuedByteCount = 16 << 20
    private static let flushedQueuedByteCount = 2 << 20
    private static let heldByteCount = 128 << 20
    private static let holdBehindTheEndMilliseconds = 100
    /// Of the end of the stream, where VMMs put what is not RAM.
    private static let tailByteCount = 4 << 20
    private let chunkByteCount: Int
    private let queue: ChunkQueue

    /// `flush`, if there is one, is called after every write until the guest stands still.
    init(
        from source: Descriptor, to sink: any VMStateWriter, flush: (@Sendable () throws(ColdframeError) -> Void)? = nil
    ) throws(ColdframeError) {
        self.source = source
        self.sink = sink
        self.flush = flush
        chunkByteCount = flush == nil ? Self.chunkByteCount : Self.flushedChunkByteCount
        let queuedByteCount = flush == nil ? Self.queuedByteCount : Self.flushedQueuedByteCount
        let tailChunkCount = Self.tailByteCount / chunkByteCount + 1
        queue = ChunkQueue(chunkByteCount: chunkByteCount, limit: queuedByteCount / chunkByteCount + tailChunkCount)
        do {
            stopSignal = try EventDescriptor()
        } catch {
            throw ColdframeError(error, "Could not begin to read the capture")
        }
    }

    /// Bytes taken from the stream so far. Any thread.
    var receivedByteCount: UInt64 { receivedCount.load(ordering: .relaxed) }

    /// Starts the threads; on a throw nobody touches the stream.
    func start() throws(ColdframeError) {
        do {
            let reader = try SystemThread.start(name: "cf-capture") { [self] in
                queue.end(read())
                // Usually the guest is told to go on now. Where it is not until all is stored, storing must not wait for it.
                queue.endHold(afterMilliseconds: Self.holdBehindTheEndMilliseconds)
            }
            do {
                try SystemThread.start(name: "cf-capture-write") { [self] in
                    let result = write()
                    // The reader is gone before anybody hears of the result.
                    queue.abandon()
                    stopSignal.signal()
                    reader.join()
                    finish(with: result)
                }
            } catch {
                queue.abandon()
                stopSignal.signal()
                reader.join()
                throw error
            }
        } catch {
            throw ColdframeError(wrapping: error).prefixed("Could not start to read the capture")
        }
    }

    /// The end of the stream, up to 4 MiB; empty until the stream has ended. Any thread.
    var tail: [UInt8] { state.withLock { $0.tail } }

    /// The guest stands still until its disks are cut and, in some ways, the rest of the stream is taken: until `goOn`,
    /// memory takes what it can, and the disk is left to the cut and to QEMU's last flushes.
    func standStill() {
        flushesAhead.store(false, ordering: .releasing)
        queue.hold(limit: Self.heldByteCount / chunkByteCount)
    }

    /// The guest runs, or will not.
    func goOn() { queue.letGo() }

    /// Makes the threads end without reading on; `result` then is `.cancelled`.
    func stop() {
        stopSignal.signal()
        queue.letGo()
    }

    /// Suspends until the stream has ended, failed or was stopped. Nobody touches the stream or the image any more.
    func result() async -> Result<SetRecord.State, ColdframeError> {
        await withCheckedContinuation { continuation in
            let done = state.withLock { state in
                if state.result == nil { state.waiters.append(continuation) }
                return state.result
            }
            if let done { continuation.resume(returning: done) }
        }
    }

    /// nil while the stream is being read.
    var resultSoFar: Result<SetRecord.State, ColdframeError>? { state.withLock { $0.result } }

    private func finish(with result: Result<SetRecord.State, ColdframeError>) {
        let waiters = state.withLock { state in
            state.result = result
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume(returning: result) }
    }

    /// The reader's thread: fills chunk after chunk.
    private func read() -> Result<Void, ColdframeError> {
        do {
            while let chunk = queue.takeEmpty() {
                var count = 1
                while count > 0, chunk.byteCount < chunk.buffer.count {
                    count = try receive(
                        into: UnsafeMutableRawBufferPointer(rebasing: chunk.buffer[chunk.byteCount...]))
                    chunk.byteCount += count
                    receivedCount.add(UInt64(count), ordering: .relaxed)
                }
                if chunk.byteCount > 0 { queue.putFull(chunk) }
                if count == 0 { break }
            }
            return .success(())
        } catch {
            return .failure(error)
        }
    }

    /// The writer's thread: puts the chunks into the image.
    private func write() -> Result<SetRecord.State, ColdframeError> {
        var state = SetRecord.State(byteCount: 0, checksum: 0)
        var lastChunks: [Chunk] = []
        var lastByteCount = 0
        do {
            while let chunk = try queue.takeFull() {
                try sink.append(chunk.filled)
                state.checksum = cf_crc32c(state.checksum, chunk.filled.baseAddress, chunk.byteCount)
                state.byteCount += UInt64(chunk.byteCount)
                lastChunks.append(chunk)
                lastByteCount += chunk.byteCount
                while lastByteCount - lastChunks[0].byteCount >= Self.tailByteCount {
                    lastByteCount -= lastChunks[0].byteCount
                    queue.putEmpty(lastChunks.removeFirst())
                }
                if flushesAhead.load(ordering: .acquiring) { try flush?() }
            }
            let tail = Array(lastChunks.map { Array($0.filled) }.joined().suffix(Self.tailByteCount))
            self.state.withLock { $0.tail = tail }
            return .success(state)
        } catch {
            return .failure(error)
        }
    }

    /// Waits for data or the stop signal; 0 at the stream's end.
    private func receive(into buffer: UnsafeMutableRawBufferPointer) throws(ColdframeError) -> Int {
        do {
            let ready = try pollDescriptors(
                [(source.raw, .readable), (stopSignal.raw, .readable)], timeoutMilliseconds: nil)
            if !ready[1].isEmpty { throw ColdframeError(.cancelled, "Operation canceled") }
            return try source.read(into: buffer)
        } catch let error as SystemError {
            throw ColdframeError(error, "Could not read the guest's state from the capture")
        } catch let error as ColdframeError {
            throw error
        } catch {
            throw ColdframeError(wrapping: error)
        }
    }
}

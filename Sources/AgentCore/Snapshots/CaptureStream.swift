import CChecksum
import ColdframeKit
import LinuxSystem
import Synchronization

/// Moves a guest's RAM from the capture's stream into the image: one thread, from the first byte to the last.
final class CaptureStream: Sendable {
    private let source: Descriptor
    private let sink: any VMStateWriter
    private let stopSignal: EventDescriptor
    private let state = Mutex(State())
    private let receivedCount = Atomic<UInt64>(0)

    private struct State {
        var result: Result<SetRecord.State, ColdframeError>?
        var waiters: [CheckedContinuation<Result<SetRecord.State, ColdframeError>, Never>] = []
    }

    /// Large, so that the image sees few and long writes.
    private static let bufferByteCount = 4 << 20

    init(from source: Descriptor, to sink: any VMStateWriter) throws(ColdframeError) {
        self.source = source
        self.sink = sink
        do {
            stopSignal = try EventDescriptor()
        } catch {
            throw ColdframeError(error, "Could not begin to read the capture")
        }
    }

    /// Bytes taken from the stream so far. Any thread.
    var receivedByteCount: UInt64 { receivedCount.load(ordering: .relaxed) }

    /// Starts the thread; on a throw nothing has been read.
    func start() throws(ColdframeError) {
        do {
            try SystemThread.start(name: "cf-capture") { [self] in finish(with: move()) }
        } catch {
            throw ColdframeError(error, "Could not start to read the capture")
        }
    }

    /// Makes the thread end without reading on; `result` then is `.cancelled`.
    func stop() {
        stopSignal.signal()
    }

    /// Suspends until the stream has ended, failed or was stopped. The thread does not touch the stream any more.
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

    private func move() -> Result<SetRecord.State, ColdframeError> {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferByteCount, alignment: 4096)
        defer { buffer.deallocate() }
        var filled = 0
        var checksum: UInt32 = 0
        var total: UInt64 = 0
        do {
            while true {
                let count = try receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
                filled += count
                receivedCount.add(UInt64(count), ordering: .relaxed)
                guard count == 0 || filled == buffer.count else { continue }
                let chunk = UnsafeRawBufferPointer(rebasing: buffer[..<filled])
                if filled > 0 {
                    try sink.append(chunk)
                    checksum = cf_crc32c(checksum, chunk.baseAddress, chunk.count)
                    total += UInt64(filled)
                    filled = 0
                }
                if count == 0 { return .success(SetRecord.State(byteCount: total, checksum: checksum)) }
            }
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

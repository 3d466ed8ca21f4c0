import ColdframeKit
import LinuxSystem
import Synchronization

/// Work on a disk that several threads share: each takes the next piece, until there is none or one of them fails.
public final class ImageWork: Sendable {
    private let byteCount: UInt64
    private let pieceByteCount: UInt64
    private let bufferByteCount: UInt64
    private let next = Atomic<UInt64>(0)
    private let done = Atomic<UInt64>(0)
    private let failure = Locked<(any Error)?>(nil)
    private let hasFailed = Atomic<Bool>(false)
    private let ended = Atomic<Int>(0)
    private let hasEnded = ConditionVariable()

    /// `pieceByteCount` is a multiple of what the work needs to have in one piece.
    /// Each thread has a buffer of a piece's size, or as given.
    public init(byteCount: UInt64, pieceByteCount: UInt64, bufferByteCount: UInt64? = nil) {
        self.byteCount = byteCount
        self.pieceByteCount = pieceByteCount
        self.bufferByteCount = bufferByteCount ?? pieceByteCount
    }

    /// Runs `body` for every piece on so many threads. `progress` is called on this thread, ten times a second, with the bytes
    /// that are done; what it throws ends the work. Blocks.
    public func run(
        workerCount: Int, progress: (_ done: UInt64) throws -> Void,
        _ body:
            @escaping @Sendable (_ offset: UInt64, _ byteCount: Int, _ buffer: UnsafeMutableRawBufferPointer) throws
            -> Void
    ) throws {
        let workers = try (0..<workerCount).map { index in
            try SystemThread.start(name: "image\(index)") { [self] in
                work(body)
                ended.add(1, ordering: .releasing)
                hasEnded.signal()
            }
        }
        while !hasEnded.waitFor(milliseconds: 100, { ended.load(ordering: .acquiring) == workerCount }) {
            do { try progress(done.load(ordering: .relaxed)) } catch { fail(error) }
        }
        for worker in workers { worker.join() }
        if let failure = failure.withLock({ $0 }) { throw failure }
        try progress(byteCount)
    }

    private func work(_ body: (UInt64, Int, UnsafeMutableRawBufferPointer) throws -> Void) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(bufferByteCount), alignment: 4096)
        defer { buffer.deallocate() }
        while !hasFailed.load(ordering: .acquiring) {
            let offset = next.add(pieceByteCount, ordering: .relaxed).oldValue
            guard offset < byteCount else { return }
            let count = min(pieceByteCount, byteCount - offset)
            do {
                try body(offset, Int(count), buffer)
            } catch {
                return fail(error)
            }
            done.add(count, ordering: .relaxed)
        }
    }

    private func fail(_ error: any Error) {
        failure.withLock { $0 = $0 ?? error }
        hasFailed.store(true, ordering: .releasing)
    }
}

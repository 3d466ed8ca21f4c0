import ColdframeKit
import LinuxSystem
import Synchronization

/// Work on a disk that several threads share: each takes the next piece, until there is none or one of them fails.
public final class ImageWork: Sendable {
    /// A part of the disk for one thread.
    public struct Piece: Sendable, Equatable {
        public var range: Range<UInt64>
        /// What is done when it is: its bytes, and those before it that need no work.
        public var coveredByteCount: UInt64
    }

    private let byteCount: UInt64
    private let bufferByteCount: UInt64
    private let take: @Sendable () throws -> Piece?
    private let done = Atomic<UInt64>(0)
    private let failure = Locked<(any Error)?>(nil)
    private let hasFailed = Atomic<Bool>(false)
    private let ended = Atomic<Int>(0)
    private let hasEnded = ConditionVariable()

    /// Work on the pieces that `take` gives out, on any thread, until it has none. Each thread has a buffer of that size.
    public init(byteCount: UInt64, bufferByteCount: UInt64, take: @escaping @Sendable () throws -> Piece?) {
        self.byteCount = byteCount
        self.bufferByteCount = bufferByteCount
        self.take = take
    }

    /// Work on all of a disk, in pieces of that size.
    public convenience init(byteCount: UInt64, pieceByteCount: UInt64) {
        let next = Locked<UInt64>(0)
        self.init(byteCount: byteCount, bufferByteCount: pieceByteCount) {
            next.withLock { next in
                let range = next..<min(byteCount, next + pieceByteCount)
                next = range.upperBound
                return range.isEmpty ? nil : Piece(range: range, coveredByteCount: range.upperBound - range.lowerBound)
            }
        }
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
        do {
            while !hasFailed.load(ordering: .acquiring), let piece = try take() {
                try body(piece.range.lowerBound, piece.range.count, buffer)
                done.add(piece.coveredByteCount, ordering: .relaxed)
            }
        } catch { fail(error) }
    }

    private func fail(_ error: any Error) {
        failure.withLock { $0 = $0 ?? error }
        hasFailed.store(true, ordering: .releasing)
    }
}

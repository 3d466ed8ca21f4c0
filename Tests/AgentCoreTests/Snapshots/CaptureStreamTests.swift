import ColdframeKit
import LinuxSystem
import Testing

@testable import AgentCore

/// How the stream of a capture goes into the image around the guest's stop.
@Suite struct CaptureStreamTests {
    private let readEnd: Descriptor
    private let writeEnd: Descriptor
    private let sink = RecordingSink()

    init() throws {
        (readEnd, writeEnd) = try UnixSocket.pair()
    }

    private func send(byteCount: Int) throws {
        try [UInt8](repeating: 7, count: byteCount).withUnsafeBytes { try writeEnd.writeAll($0) }
    }

    private func wait(until isTrue: () -> Bool) async throws {
        for _ in 0..<2000 where !isTrue() { try await Task.sleep(nanoseconds: 1_000_000) }
        #expect(isTrue())
    }

    @Test(.timeLimit(.minutes(1))) func whatComesBeforeTheStopIsFlushedAsItComes() async throws {
        let sink = sink
        let stream = try CaptureStream(from: readEnd, to: sink, flush: { () throws(ColdframeError) in sink.flush() })
        try stream.start()
        try send(byteCount: 3 << 20)
        try await wait { sink.byteCount == 3 << 20 && sink.unflushedByteCount == 0 }
        stream.standStill()
        let flushes = sink.flushCount
        try send(byteCount: 1 << 20)
        writeEnd.close()
        stream.goOn()
        let state = try await stream.result().get()
        #expect(state.byteCount == 4 << 20)
        #expect(sink.flushCount == flushes, "flushed while the guest stood still")
        readEnd.close()
    }

    @Test(.timeLimit(.minutes(1))) func theImageIsLeftAloneWhileTheGuestStandsStill() async throws {
        let stream = try CaptureStream(from: readEnd, to: sink)
        try stream.start()
        stream.standStill()
        try send(byteCount: 9 << 20)
        try await wait { stream.receivedByteCount == 9 << 20 }
        #expect(sink.byteCount == 0)
        stream.goOn()
        writeEnd.close()
        #expect(try await stream.result().get().byteCount == 9 << 20)
        #expect(sink.byteCount == 9 << 20)
        readEnd.close()
    }

    @Test(.timeLimit(.minutes(1)), arguments: [0, 5, 4 << 20, 9 << 20 | 3])
    func theEndOfTheStreamIsKept(byteCount: Int) async throws {
        let sink = sink
        for isFlushed in [false, true] {
            let (readEnd, writeEnd) = try UnixSocket.pair()
            let stream =
                isFlushed
                ? try CaptureStream(from: readEnd, to: sink, flush: { () throws(ColdframeError) in sink.flush() })
                : try CaptureStream(from: readEnd, to: sink)
            try stream.start()
            var bytes = [UInt8](repeating: 0, count: byteCount)
            for page in stride(from: 0, to: byteCount, by: 4099) { bytes[page] = UInt8(truncatingIfNeeded: page >> 4) }
            try bytes.withUnsafeBytes { try writeEnd.writeAll($0) }
            writeEnd.close()
            #expect(try await stream.result().get().byteCount == UInt64(byteCount))
            #expect(stream.tail == bytes.suffix(4 << 20))
            readEnd.close()
        }
    }

    @Test(.timeLimit(.minutes(1))) func aStreamAtItsEndIsStoredThoughNobodySaysThatTheGuestRuns() async throws {
        let stream = try CaptureStream(from: readEnd, to: sink)
        try stream.start()
        stream.standStill()
        try send(byteCount: 1 << 20)
        writeEnd.close()
        #expect(try await stream.result().get().byteCount == 1 << 20)
        readEnd.close()
    }

    @Test(.timeLimit(.minutes(2))) func aStreamThatMemoryCannotHoldGoesOnToTheImage() async throws {
        let stream = try CaptureStream(from: readEnd, to: sink)
        try stream.start()
        stream.standStill()
        try send(byteCount: 160 << 20)
        writeEnd.close()
        #expect(try await stream.result().get().byteCount == 160 << 20)
        readEnd.close()
    }

    @Test(.timeLimit(.minutes(1))) func aHeldStreamThatIsStoppedEnds() async throws {
        let stream = try CaptureStream(from: readEnd, to: sink)
        try stream.start()
        stream.standStill()
        try send(byteCount: 1 << 20)
        stream.stop()
        guard case .failure(let error) = await stream.result() else {
            Issue.record("a stream that was stopped came to its end")
            return
        }
        #expect(error.code == .cancelled)
        readEnd.close()
        writeEnd.close()
    }

    @Test(.timeLimit(.minutes(1))) func aFailedFlushFailsTheStream() async throws {
        let stream = try CaptureStream(
            from: readEnd, to: sink, flush: { () throws(ColdframeError) in throw ColdframeError(.io, "no space") })
        try stream.start()
        // No more than one chunk: nobody reads on.
        try send(byteCount: 512 << 10)
        guard case .failure(let error) = await stream.result() else {
            Issue.record("a stream whose image cannot be flushed came to its end")
            return
        }
        #expect(error.message == "no space")
        readEnd.close()
        writeEnd.close()
    }
}

/// Counts what is appended and flushed.
private final class RecordingSink: VMStateWriter {
    private let counts = Locked((written: 0, flushed: 0, flushes: 0))

    var byteCount: Int { counts.withLock { $0.written } }
    var unflushedByteCount: Int { counts.withLock { $0.written - $0.flushed } }
    var flushCount: Int { counts.withLock { $0.flushes } }

    func append(_ bytes: UnsafeRawBufferPointer) throws(ColdframeError) {
        let count = bytes.count
        counts.withLock { $0.written += count }
    }

    func flush() {
        counts.withLock { counts in
            counts.flushed = counts.written
            counts.flushes += 1
        }
    }

    func attach(
        toSnapshot id: String, annotation: [UInt8], guestClockNanoseconds: UInt64
    ) throws(ColdframeError) -> SnapshotInfo {
        throw ColdframeError(.unsupported, "A sink of a test has no snapshots")
    }

    func abandon() throws(ColdframeError) {}
}

import CChecksum
import ColdframeKit
import LinuxSystem

/// Writes a stored state into the stream of a process that is to take it. Runs on a thread of its own.
struct StateFeed: Sendable {
    /// Does not block.
    let stream: Descriptor
    let control: any JobControl

    private static let chunkByteCount = 1 << 20
    /// A process that takes nothing for so long hangs.
    private static let patienceMilliseconds = 60_000
    /// How soon a cancel is noticed.
    private static let stepMilliseconds = 100

    /// Writes all of it and closes the stream. Returns what was read, which is to be compared with what was saved.
    func run(_ source: any VMStateReader) throws(ColdframeError) -> SetRecord.State {
        defer { stream.close() }
        var checksum: UInt32 = 0
        try StateReading.forEachChunk(of: source, byteCount: Self.chunkByteCount) {
            chunk, offset throws(ColdframeError) in
            checksum = cf_crc32c(checksum, chunk.baseAddress, chunk.count)
            try write(chunk)
            control.setProgress(current: offset + UInt64(chunk.count), total: source.byteCount)
        }
        return SetRecord.State(byteCount: source.byteCount, checksum: checksum)
    }

    private func write(_ chunk: UnsafeRawBufferPointer) throws(ColdframeError) {
        var done = 0
        var waited = 0
        while done < chunk.count {
            if control.isCancelled { throw ColdframeError(.cancelled, "Operation canceled") }
            do {
                guard try !stream.poll(for: .writable, timeoutMilliseconds: Self.stepMilliseconds).isEmpty else {
                    waited += Self.stepMilliseconds
                    guard waited < Self.patienceMilliseconds else {
                        throw ColdframeError(
                            .timedOut, "The new process has taken nothing of its state for \(waited / 1000) s")
                    }
                    continue
                }
                done += try stream.write(UnsafeRawBufferPointer(rebasing: chunk[done...]))
                waited = 0
            } catch let error as SystemError where error.errno == Errno.tryAgain {
                continue
            } catch let error as SystemError {
                throw ColdframeError(.peer, "The new process takes no more of its state: \(error.reason)")
            } catch {
                throw ColdframeError(wrapping: error)
            }
        }
    }
}

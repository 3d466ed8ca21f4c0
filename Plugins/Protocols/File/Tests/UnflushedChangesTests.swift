import LinuxSystem
import Testing

@testable import FileProtocol

@Suite struct UnflushedChangesTests {
    @Test func onlyWhatHasChangedIsFlushed() throws {
        let changes = UnflushedChanges()
        var flushCount = 0
        func flush(_ body: () -> Void = {}) throws {
            try changes.flush { () throws(SystemError) in
                flushCount += 1
                body()
            }
        }
        // Somebody may have written before.
        try flush()
        #expect(flushCount == 1)
        try flush()
        #expect(flushCount == 1)
        changes.note()
        changes.note()
        try flush()
        try flush()
        #expect(flushCount == 2)
        // What changes meanwhile need not be in it.
        changes.note()
        try flush { changes.note() }
        try flush()
        #expect(flushCount == 4)
    }

    @Test func afterAFailureNoneSucceeds() throws {
        let changes = UnflushedChanges()
        let error = SystemError(errno: Errno.io, operation: "fdatasync")
        let first = #expect(throws: UnflushedChanges.Failure.self) {
            try changes.flush { () throws(SystemError) in throw error }
        }
        #expect(first?.isEarlier == false)
        changes.note()
        let second = #expect(throws: UnflushedChanges.Failure.self) { try changes.flush { () throws(SystemError) in } }
        #expect(second?.isEarlier == true && second?.error.errno == Errno.io)
    }

    /// A file whose blocks become durable when it is flushed: what a thread has written before its flush is among them.
    @Test func eachThreadsFlushCoversWhatItWrote() throws {
        let changes = UnflushedChanges()
        let threadCount = 8
        let written = Locked([Int](repeating: 0, count: threadCount))
        let durable = Locked([Int](repeating: 0, count: threadCount))
        let missing = Locked(0)
        let threads = try (0..<threadCount).map { number in
            try SystemThread.start(name: "flush-\(number)") {
                for value in 1...2000 {
                    written.withLock { $0[number] = value }
                    changes.note()
                    try? changes.flush { () throws(SystemError) in
                        let now = written.withLock { $0 }
                        durable.withLock { $0 = now }
                    }
                    if durable.withLock({ $0[number] }) < value { missing.withLock { $0 += 1 } }
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(missing.withLock { $0 } == 0)
    }
}

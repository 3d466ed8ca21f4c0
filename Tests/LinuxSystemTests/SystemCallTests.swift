import LinuxSystem
import Testing

@Suite struct SystemCallTests {
    @Test func anErrorNamesCallAndSubject() {
        let error = systemError { try Descriptor.open("/no/such/file", .readOnly) }
        #expect(error == SystemError(errno: Errno.noEntry, operation: "open", subject: "/no/such/file"))
        #expect(error?.description == "open '/no/such/file': No such file or directory")
    }

    @Test func anErrorWithoutSubject() {
        #expect(SystemError(errno: Errno.io, operation: "fdatasync").description == "fdatasync: Input/output error")
    }

    @Test func aPathWithNULIsRefused() {
        #expect(systemError { try Descriptor.open("/dev/null\0/x", .readOnly) }?.errno == Errno.invalid)
        #expect(systemError { try Files.rename(from: "/tmp", to: "/x\0") }?.errno == Errno.invalid)
        #expect(systemError { try Files.listDirectory("/\0") }?.errno == Errno.invalid)
    }

    @Test func anOffsetBehindAllFilesIsRefused() throws {
        let file = try Descriptor.memoryFile(name: "t")
        #expect(systemError { try file.truncate(toByteCount: .max) }?.errno == Errno.fileTooBig)
        #expect(systemError { try file.preadBytes(at: 1 << 63, count: 1) }?.errno == Errno.fileTooBig)
    }
}

@Suite struct SystemCallFaultsTests {
    @Test func theNthCallFailsOnce() throws {
        SystemCallFaults.inject(onCall: 2, errno: Errno.noSpace, matching: ["fstat"])
        defer { SystemCallFaults.clear() }
        let file = try Descriptor.memoryFile(name: "t")
        _ = try file.status()
        #expect(systemError { try file.status() } == SystemError(errno: Errno.noSpace, operation: "fstat"))
        _ = try file.status()
        #expect(SystemCallFaults.callCount == 3)
    }

    @Test func otherOperationsDoNotCount() throws {
        SystemCallFaults.inject(onCall: 1, errno: Errno.io, matching: ["pwrite"])
        defer { SystemCallFaults.clear() }
        let file = try Descriptor.memoryFile(name: "t")
        _ = try file.status()
        #expect(SystemCallFaults.callCount == 0)
        #expect(systemError { try file.put([1], at: 0) }?.errno == Errno.io)
    }

    @Test func withoutANumberItOnlyCounts() throws {
        SystemCallFaults.inject(onCall: 0, errno: Errno.io)
        defer { SystemCallFaults.clear() }
        let file = try Descriptor.memoryFile(name: "t")
        try file.synchronize()
        #expect(SystemCallFaults.callCount == 2)
    }

    @Test func otherThreadsAreLeftAlone() throws {
        SystemCallFaults.inject(onCall: 1, errno: Errno.io, matching: ["fsync"])
        defer { SystemCallFaults.clear() }
        let file = try Descriptor.memoryFile(name: "t")
        let results = ResultBox()
        try SystemThread.start(name: "other") { results.set(systemError { try file.synchronize() }) }.join()
        #expect(results.value == nil)
        #expect(systemError { try file.synchronize() } != nil)
    }

    @Test func clearEndsIt() throws {
        SystemCallFaults.inject(onCall: 1, errno: Errno.io)
        SystemCallFaults.clear()
        _ = try Descriptor.memoryFile(name: "t")
        #expect(SystemCallFaults.callCount == 0)
    }
}

final class ResultBox: Sendable {
    private let mutex = PlainMutex()
    nonisolated(unsafe) private var stored: SystemError?
    func set(_ error: SystemError?) { mutex.withLock { stored = error } }
    var value: SystemError? { mutex.withLock { stored } }
}

import Glibc
import LinuxSystem
import Testing

@Suite struct ProcessTests {
    private func run(_ request: SpawnRequest) throws -> LinuxSystem.ExitStatus {
        try ProcessControl.wait(try ProcessControl.spawn(request))
    }

    @Test func exitCodesComeBack() throws {
        #expect(try run(SpawnRequest(path: "sh", arguments: ["-c", "exit 3"])) == .exited(3))
        #expect(try run(SpawnRequest(path: "/bin/sh", arguments: ["-c", "kill -9 $$"])) == .signalled(9))
    }

    @Test func aMissingProgramIsAnError() {
        let error = systemError { try ProcessControl.spawn(SpawnRequest(path: "/no/such/program")) }
        #expect(error == SystemError(errno: Errno.noEntry, operation: "posix_spawn", subject: "/no/such/program"))
    }

    @Test func descriptorsArriveUnderTheirNumbers() throws {
        let (outRead, outWrite) = try pipe()
        let (first, second) = (try Descriptor.memoryFile(name: "a"), try Descriptor.memoryFile(name: "b"))
        try first.put(Array("first".utf8), at: 0)
        try second.put(Array("second".utf8), at: 0)
        // Each other's numbers: neither may overwrite the other on its way.
        let request = SpawnRequest(
            path: "sh", arguments: ["-c", "cat /proc/self/fd/\(second.raw) /proc/self/fd/\(first.raw)"],
            descriptors: [(first.raw, second.raw), (second.raw, first.raw), (outWrite.raw, 1)])
        #expect(try run(request) == .exited(0))
        outWrite.close()
        #expect(try outRead.readText() == "firstsecond")
    }

    @Test func otherDescriptorsAreClosed() throws {
        let (outRead, outWrite) = try pipe()
        // What lies between the targets is closed too.
        let leaked = try Descriptor.memoryFile(name: "leak")
        let request = SpawnRequest(
            path: "sh", arguments: ["-c", "ls /proc/self/fd | tr '\\n' ' '"],
            descriptors: [(outWrite.raw, 1), (leaked.raw, 9)])
        #expect(try run(request) == .exited(0))
        outWrite.close()
        // 3 is ls's own descriptor of the directory.
        #expect(try outRead.readText() == "0 1 2 3 9 ")
    }

    @Test func environmentAndDirectoryAreItsOwn() throws {
        let (outRead, outWrite) = try pipe()
        let request = SpawnRequest(
            path: "/bin/sh", arguments: ["-c", "echo $A; pwd"], environment: ["A=b c"],
            descriptors: [(outWrite.raw, 1)], workingDirectory: "/")
        #expect(try run(request) == .exited(0))
        outWrite.close()
        #expect(try outRead.readText() == "b c\n/\n")
    }

    @Test func aNewSessionHasItsOwnGroup() throws {
        let (outRead, outWrite) = try pipe()
        let pid = try ProcessControl.spawn(
            SpawnRequest(
                path: "sh", arguments: ["-c", "cut -d' ' -f5,6 /proc/$$/stat"], descriptors: [(outWrite.raw, 1)],
                newSession: true))
        #expect(try ProcessControl.wait(pid) == .exited(0))
        outWrite.close()
        #expect(try outRead.readText() == "\(pid) \(pid)\n")
    }

    @Test func argumentsWithNULAreRefused() {
        #expect(
            systemError { try ProcessControl.spawn(SpawnRequest(path: "true", arguments: ["a\0b"])) }?.errno
                == Errno.invalid)
    }

    @Test func waitingWithoutBlocking() throws {
        let (readEnd, writeEnd) = try pipe()
        let pid = try ProcessControl.spawn(SpawnRequest(path: "cat", descriptors: [(readEnd.raw, 0)]))
        #expect(try ProcessControl.waitNonBlocking(pid) == nil)
        let watch = try ProcessControl.pidfdOpen(pid)
        #expect(try watch.poll(for: .readable, timeoutMilliseconds: 0).isEmpty)
        writeEnd.close()
        #expect(try watch.poll(for: .readable, timeoutMilliseconds: 10_000) == .readable)
        #expect(try ProcessControl.waitNonBlocking(pid) == .exited(0))
    }

    @Test func signalsArrive() throws {
        let pid = try ProcessControl.spawn(SpawnRequest(path: "sleep", arguments: ["60"]))
        try ProcessControl.signal(pid, Signals.terminate)
        #expect(try ProcessControl.wait(pid) == .signalled(Signals.terminate))
    }

    @Test func aSignalIsWaitedFor() throws {
        // Only the thread that blocks it gets a signal sent to the thread itself; user1 is used by nobody else.
        let waiter = try SignalWaiter(signals: [Signals.user1])
        pthread_kill(pthread_self(), Signals.user1)
        #expect(try waiter.wait() == Signals.user1)
    }

    @Test func theEnvironmentIsRead() {
        #expect(ProcessControl.environment("PATH") != nil)
        #expect(ProcessControl.environment("COLDFRAME_NO_SUCH_VARIABLE") == nil)
    }
}

import LinuxSystem
import Testing

@Suite struct UnixSocketTests {
    @Test func clientAndServerTalk() throws {
        let directory = try TestDirectory()
        let listener = try UnixSocket.listen(path: directory.file("s"))
        let client = try UnixSocket.connect(path: directory.file("s"))
        let server = try listener.accept()
        try client.write(text: "ping")
        #expect(try server.readText() == "ping")
        #expect(try Files.status(directory.file("s")).permissions == 0o600)
    }

    @Test func thePeerIsKnown() throws {
        let (one, other) = try UnixSocket.pair()
        #expect(try one.peerCredentials().processID == ProcessControl.currentPID)
        #expect(try other.peerCredentials().userID == ProcessControl.effectiveUserID)
    }

    @Test func aLongPathIsRefused() throws {
        let path = "/tmp/" + String(repeating: "x", count: 103)
        #expect(throws: UnixSocket.PathTooLong(path: path)) { try UnixSocket.checkPath(path) }
        #expect(systemError { try UnixSocket.listen(path: path) }?.errno == Errno.nameTooLong)
        #expect(systemError { try UnixSocket.connect(path: path) }?.errno == Errno.nameTooLong)
        #expect(!Files.exists(path))
        #expect(
            UnixSocket.PathTooLong(path: "P").description
                == "UNIX socket path 'P' is too long: Path must be less than 108 bytes")
    }

    @Test func theLongestPathWorks() throws {
        let directory = try TestDirectory()
        let path = directory.path + "/" + String(repeating: "x", count: 107 - directory.path.utf8.count - 1)
        _ = try UnixSocket.listen(path: path)
        #expect(try Files.status(path).isSocket)
    }

    @Test func aStaleSocketIsReplaced() throws {
        let directory = try TestDirectory()
        try UnixSocket.listen(path: directory.file("s")).close()
        let listener = try UnixSocket.listen(path: directory.file("s"))
        _ = try UnixSocket.connect(path: directory.file("s"))
        _ = listener
    }

    @Test func aLiveSocketIsNot() throws {
        let directory = try TestDirectory()
        let listener = try UnixSocket.listen(path: directory.file("s"))
        #expect(systemError { try UnixSocket.listen(path: directory.file("s")) }?.errno == Errno.addressInUse)
        _ = try UnixSocket.connect(path: directory.file("s"))
        _ = listener
    }

    @Test func aFileInItsPlaceStays() throws {
        let directory = try TestDirectory()
        try Files.replaceAtomically(directory.file("s"), contents: Array("data".utf8))
        #expect(systemError { try UnixSocket.listen(path: directory.file("s")) }?.errno == Errno.addressInUse)
        #expect(try Files.readAll(directory.file("s"), limit: 10) == Array("data".utf8))
    }

    @Test func descriptorsPass() throws {
        let (one, other) = try UnixSocket.pair()
        let file = try Descriptor.memoryFile(name: "t")
        try file.write(text: "shared")
        try one.sendAllWithDescriptors(Array("take".utf8), [file.raw, file.raw])
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 1)
        defer { buffer.deallocate() }
        let (count, descriptors) = try other.receiveWithDescriptors(into: buffer, maxDescriptors: 4)
        #expect(count == 4)
        #expect(descriptors.count == 2)
        #expect(try descriptors[1].preadBytes(at: 0, count: 6) == Array("shared".utf8))
    }

    @Test func moreDescriptorsThanExpectedAreRefused() throws {
        let (one, other) = try UnixSocket.pair()
        let file = try Descriptor.memoryFile(name: "t")
        try one.sendAllWithDescriptors([1], [file.raw, file.raw, file.raw])
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 1)
        defer { buffer.deallocate() }
        #expect(
            systemError { try other.receiveWithDescriptors(into: buffer, maxDescriptors: 2) }?.errno
                == Errno.messageSize)
    }

    @Test func aClosedPeerIsAnErrorNotASignal() throws {
        let (one, other) = try UnixSocket.pair()
        other.close()
        #expect(systemError { try one.write(text: "x") }?.errno == Errno.brokenPipe)
    }

    @Test func shutdownWakesAReader() throws {
        let (one, other) = try UnixSocket.pair()
        let reader = try SystemThread.start(name: "reader") { _ = try? one.readText() }
        SystemThread.sleep(milliseconds: 20)
        try one.shutdown(.both)
        reader.join()
        _ = other
    }

    @Test func shutdownEndsAccept() throws {
        let directory = try TestDirectory()
        let listener = try UnixSocket.listen(path: directory.file("s"))
        let box = ResultBox()
        let thread = try SystemThread.start(name: "accept") { box.set(systemError { try listener.accept() }) }
        SystemThread.sleep(milliseconds: 20)
        try listener.shutdown(.both)
        thread.join()
        #expect(box.value?.errno == Errno.invalid)
    }

    @Test func aReceiveTimeoutEnds() throws {
        let (one, other) = try UnixSocket.pair()
        try one.setReceiveTimeout(milliseconds: 20)
        #expect(systemError { try one.readText() }?.errno == Errno.tryAgain)
        _ = other
    }
}

@Suite struct TCPSocketTests {
    @Test func loopbackWorks() throws {
        let listener = try TCPSocket.listenLoopback(host: "localhost", port: 0)
        let port = try TCPSocket.localPort(of: listener)
        #expect(port != 0)
        let client = try TCPSocket.connect(host: "127.0.0.1", port: port)
        let server = try listener.accept()
        try server.setNoDelay(true)
        try server.write(text: "pong")
        #expect(try client.readText() == "pong")
    }

    @Test func otherAddressesAreRefused() {
        #expect(systemError { try TCPSocket.listenLoopback(host: "0.0.0.0", port: 0) } != nil)
        #expect(systemError { try TCPSocket.listenLoopback(host: "example.org", port: 0) }?.errno == Errno.invalid)
    }

    @Test func nobodyListens() throws {
        let listener = try TCPSocket.listenLoopback(host: "", port: 0)
        let port = try TCPSocket.localPort(of: listener)
        listener.close()
        #expect(systemError { try TCPSocket.connect(host: "localhost", port: port) }?.errno == Errno.connectionRefused)
    }
}

@Suite struct PollingTests {
    @Test func nothingHappensUntilTheTimeout() throws {
        let (readEnd, writeEnd) = try pipe()
        let start = SystemClock.monotonicNanoseconds()
        #expect(try readEnd.poll(for: .readable, timeoutMilliseconds: 20).isEmpty)
        #expect(SystemClock.monotonicNanoseconds() - start >= 20_000_000)
        _ = writeEnd
    }

    @Test func eachDescriptorHasItsEvents() throws {
        let (readEnd, writeEnd) = try pipe()
        let (otherRead, otherWrite) = try pipe()
        try writeEnd.write(text: "x")
        otherWrite.close()
        let events = try pollDescriptors(
            [(readEnd.raw, .readable), (otherRead.raw, .readable), (writeEnd.raw, .writable)], timeoutMilliseconds: nil)
        #expect(events == [.readable, .hangUp, .writable])
    }

    @Test func anEventWakesAndIsDrained() throws {
        let event = try EventDescriptor()
        #expect(!event.drain())
        event.signal()
        event.signal()
        #expect(try pollDescriptors([(event.raw, .readable)], timeoutMilliseconds: 0) == [.readable])
        #expect(event.drain())
        #expect(!event.drain())
    }
}

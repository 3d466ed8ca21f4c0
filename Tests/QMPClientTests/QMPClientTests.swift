import LinuxSystem
import QMPWire
import Testing

@testable import QMPClient

/// A server of few words: greets, then answers each command by `answer`, on a thread of its own.
private func fakeServer(
    greets: Bool = true,
    _ answer: @escaping @Sendable (_ request: JSONValue, _ descriptors: [Descriptor]) -> [JSONValue]
) throws -> Descriptor {
    let (mine, theirs) = try UnixSocket.pair()
    _ = try SystemThread.start(name: "fake-qmp") {
        var parser = JSONParser()
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
        defer {
            buffer.deallocate()
            mine.close()
        }
        if greets { try? mine.writeAll(JSONWriter.message(["QMP": ["version": [:], "capabilities": ["oob"]]])) }
        while let (count, descriptors) = try? mine.receiveWithDescriptors(into: buffer, maxDescriptors: 8), count > 0 {
            var replies: [JSONValue] = []
            parser.feed(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { outcome in
                if case .success(let request) = outcome { replies += answer(request, descriptors) }
            }
            for reply in replies {
                if (try? mine.sendAllWithDescriptors(JSONWriter.message(reply), [])) == nil { return }
            }
        }
    }
    return theirs
}

private func reply(_ request: JSONValue, _ result: JSONValue = [:]) -> JSONValue {
    QMPResponse.success(result, id: request["id"])
}

@Suite struct QMPClientTests {
    @Test func negotiatesAndExecutes() async throws {
        let socket = try fakeServer { request, _ in [reply(request, ["got": request["execute"] ?? .null])] }
        let client = try QMPClient(descriptor: socket)
        let greeting = try await client.negotiate(outOfBand: true, timeoutMilliseconds: 10_000)
        #expect(greeting["capabilities"] == ["oob"])
        #expect(try await client.execute("query-x", ["a": 1]) == ["got": "query-x"])
    }

    @Test func errorsArePassedOn() async throws {
        let error = QMPError(.deviceNotFound, "Device 'x' not found")
        let socket = try fakeServer { request, _ in [QMPResponse.failure(error, id: request["id"])] }
        let client = try QMPClient(descriptor: socket)
        await #expect(throws: QMPClientError.refused(error)) { try await client.execute("x") }
    }

    @Test func answersAreMatchedById() async throws {
        let held = Locked<JSONValue?>(nil)
        let socket = try fakeServer { request, _ in
            if request["execute"] == "slow" {
                held.withLock { $0 = request }
                return []
            }
            let slow = held.withLock { $0 }
            return [reply(request, "fast")] + (slow.map { [reply($0, "slow")] } ?? [])
        }
        let client = try QMPClient(descriptor: socket)
        async let slow = client.execute("slow")
        while held.withLock({ $0 == nil }) { try await Task.sleep(for: .milliseconds(1)) }
        #expect(try await client.execute("fast") == "fast")
        #expect(try await slow == "slow")
    }

    @Test func eventsComeInOrderAndBeforeTheAnswer() async throws {
        let socket = try fakeServer { request, _ in
            (0..<100).map { ["event": "E", "data": ["n": .integer($0)]] } + [reply(request)]
        }
        let seen = Locked<[JSONValue]>([])
        let client = try QMPClient(
            descriptor: socket, onEvent: { event in seen.withLock { $0.append(event["data"]?["n"] ?? .null) } })
        _ = try await client.execute("x")
        #expect(seen.withLock { $0 } == (0..<100).map { .integer($0) })
    }

    @Test func aStreamEndsWithTheConnection() async throws {
        let socket = try fakeServer { request, _ in [["event": "E"], reply(request)] }
        let client = try QMPClient(descriptor: socket)
        let events = client.events()
        _ = try await client.execute("x")
        client.close()
        var names: [JSONValue?] = []
        for await event in events { names.append(event["event"]) }
        #expect(names == ["E"])
    }

    @Test func descriptorsGoWithTheirCommand() async throws {
        let file = try Descriptor.memoryFile(name: "sent")
        try file.writeAll(Array("hello".utf8))
        let socket = try fakeServer { request, descriptors in
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 16)
            defer { buffer.deallocate() }
            let count = descriptors.first.flatMap { try? $0.preadFull(into: buffer, at: 0) } ?? 0
            return [reply(request, .string(String(decoding: buffer[..<count], as: UTF8.self)))]
        }
        let client = try QMPClient(descriptor: socket)
        #expect(try await client.execute("getfd", ["fdname": "f"], descriptors: [file.raw]) == "hello")
    }

    @Test func silenceTimesOut() async throws {
        let socket = try fakeServer { _, _ in [] }
        let client = try QMPClient(descriptor: socket)
        await #expect(throws: QMPClientError.timedOut(command: "x", milliseconds: 20)) {
            try await client.execute("x", timeoutMilliseconds: 20)
        }
        #expect(throws: QMPClientError.timedOut(command: "y", milliseconds: 20)) {
            try client.executeBlocking("y", timeoutMilliseconds: 20)
        }
    }

    @Test func noGreetingTimesOut() async throws {
        let socket = try fakeServer(greets: false) { _, _ in [] }
        let client = try QMPClient(descriptor: socket)
        await #expect(throws: QMPClientError.timedOut(command: "greeting", milliseconds: 20)) {
            try await client.negotiate(timeoutMilliseconds: 20)
        }
    }

    @Test func theEndOfThePeerFailsWhatIsUnderWay() async throws {
        let (mine, theirs) = try UnixSocket.pair()
        let reasons = Locked<[String]>([])
        let client = try QMPClient(descriptor: theirs, onClose: { reason in reasons.withLock { $0.append(reason) } })
        let answer = Task { try await client.execute("x") }
        try mine.writeAll(Array("{\"event\": \"E\"}".utf8))
        mine.close()
        await #expect(throws: QMPClientError.self) { try await answer.value }
        #expect(client.closedReason != nil)
        await #expect(throws: QMPClientError.self) { try await client.execute("y") }
        // Who waits for an answer hears of it first.
        for _ in 0..<10_000 where reasons.withLock({ $0.isEmpty }) { try await Task.sleep(nanoseconds: 1_000_000) }
        #expect(reasons.withLock { $0.count } == 1)
    }

    @Test func garbageEndsTheConnection() async throws {
        let (mine, theirs) = try UnixSocket.pair()
        let client = try QMPClient(descriptor: theirs)
        try mine.writeAll(Array("HTTP/1.1 200 OK\r\n".utf8))
        await #expect(throws: QMPClientError.self) { try await client.negotiate() }
        #expect(client.closedReason?.contains("no QMP") == true)
    }

    @Test func blockingCallsWork() throws {
        let socket = try fakeServer { request, _ in [reply(request, 7)] }
        let client = try QMPClient(descriptor: socket)
        try client.negotiateBlocking(timeoutMilliseconds: 10_000)
        #expect(try client.executeBlocking("x", timeoutMilliseconds: 10_000) == 7)
    }
}

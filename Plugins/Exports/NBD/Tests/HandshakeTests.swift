import LinuxSystem
import Testing

@testable import NBDExport

/// Negotiation with clients that are wrong, slow or hostile. After each the server serves the next.
@Suite struct HandshakeTests {
    private let invalid = WireOptionReply.invalid.rawValue

    /// Runs `body`, then checks that another client is served.
    private func hostile(limits: ServerLimits = ServerLimits(), _ body: (RawClient) throws -> Void) async throws {
        try await TestServer.with(MemoryDisk(byteCount: 1 << 20), limits: limits) { server in
            try body(RawClient(path: server.socketPath))
            try RawClient(path: server.socketPath).enter()
        }
    }

    @Test func randomBytesEndTheConnection() async throws {
        try await hostile { client in
            var generator = SystemRandomNumberGenerator()
            try? client.send((0..<4096).map { _ in UInt8.random(in: 0...255, using: &generator) })
            #expect(client.isClosedByServer())
        }
    }

    @Test func unknownClientFlagsEndTheConnection() async throws {
        try await hostile { client in
            try client.greet(flags: 0x8000_0003)
            #expect(client.isClosedByServer())
        }
    }

    @Test func aHugeOptionIsRefusedUnread() async throws {
        try await hostile { client in
            try client.greet()
            try client.option(7, declaredByteCount: .max)
            #expect(try client.optionReply().type == WireOptionReply.tooBig.rawValue)
            #expect(client.isClosedByServer())
        }
    }

    @Test func aTruncatedOptionEndsAtTheDeadline() async throws {
        var limits = ServerLimits()
        limits.handshakeMilliseconds = 200
        try await hostile(limits: limits) { client in
            try client.greet()
            try client.option(7, [0, 0], declaredByteCount: 100)
            #expect(client.isClosedByServer())
        }
    }

    @Test func aSilentClientEndsAtTheDeadline() async throws {
        var limits = ServerLimits()
        limits.handshakeMilliseconds = 200
        try await hostile(limits: limits) { client in
            let start = SystemClock.monotonicNanoseconds()
            #expect(client.isClosedByServer())
            #expect(SystemClock.monotonicNanoseconds() - start < 4_000_000_000)
        }
    }

    @Test func aNegotiatedClientHasNoDeadline() async throws {
        var limits = ServerLimits()
        limits.handshakeMilliseconds = 100
        try await hostile(limits: limits) { client in
            try client.enter()
            SystemThread.sleep(milliseconds: 300)
            try client.request(3)
            #expect(try client.simpleReply().error == 0)
        }
    }

    @Test func malformedOptionDataIsInvalidAndTheHandshakeGoesOn() async throws {
        try await hostile { client in
            try client.greet()
            // A name that claims to be longer than the data; a name that is no UTF-8; a wrong count of requests.
            for data in [
                [0, 0, 0, 9, 100, 0, 0], [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 1, 0xff, 0, 0], [0, 0, 0, 1, 100, 0, 1],
                [],
            ] as [[UInt8]] {
                try client.option(7, data)
                #expect(try client.optionReply().type == invalid)
            }
            try client.option(7, RawClient.goData("d"))
            while try client.optionReply().type != 1 {}
        }
    }

    @Test func unknownOptionsAndTLSAreUnsupported() async throws {
        try await hostile { client in
            try client.greet()
            try client.option(4711, [1, 2, 3])
            #expect(try client.optionReply().type == WireOptionReply.unsupported.rawValue)
            try client.option(5)
            let reply = try client.optionReply()
            #expect(reply.type == WireOptionReply.unsupported.rawValue)
            #expect(reply.text == "This server does not offer TLS")
        }
    }

    @Test func metaContextsNeedStructuredReplies() async throws {
        try await hostile { client in
            try client.greet()
            try client.option(10, RawClient.metaData("d", ["base:allocation"]))
            #expect(try client.optionReply().type == invalid)
        }
    }

    @Test func metaContextsCountIsNotBelieved() async throws {
        try await hostile { client in
            try client.greet()
            try client.option(8)
            #expect(try client.optionReply().type == 1)
            try client.option(10, [0, 0, 0, 1, 100, 0xff, 0xff, 0xff, 0xff])
            #expect(try client.optionReply().type == invalid)
        }
    }

    @Test func unknownContextsAreSkipped() async throws {
        try await hostile { client in
            try client.greet()
            try client.option(8)
            _ = try client.optionReply()
            try client.option(9, RawClient.metaData("d", ["qemu:dirty-bitmap:b"]))
            #expect(try client.optionReply().type == 1)
            try client.option(9, RawClient.metaData("d", []))
            #expect(try client.optionReply().data == [0, 0, 0, 0] + Array("base:allocation".utf8))
            #expect(try client.optionReply().type == 1)
        }
    }

    @Test func abortIsAcknowledged() async throws {
        try await hostile { client in
            try client.greet()
            try client.option(2)
            #expect(try client.optionReply().type == 1)
            #expect(client.isClosedByServer())
        }
    }

    @Test func theOldOptionEntersWithZeroesUnlessRefused() async throws {
        try await hostile { client in
            try client.greet(flags: 1)
            try client.option(1, Array("d".utf8))
            let bytes = try client.receive(8 + 2 + 124)
            #expect(bytes.prefix(8) == [0, 0, 0, 0, 0, 16, 0, 0])
            #expect(bytes.suffix(124).allSatisfy { $0 == 0 })
            try client.request(3)
            #expect(try client.simpleReply().error == 0)
        }
    }

    @Test func theOldOptionWithAnUnknownNameDisconnects() async throws {
        try await hostile { client in
            try client.greet()
            try client.option(1, Array("zz".utf8))
            #expect(client.isClosedByServer())
        }
    }

    @Test func clientsBeyondTheLimitAreTurnedAway() async throws {
        var limits = ServerLimits()
        limits.maxConnections = 2
        limits.refusalMilliseconds = 100
        try await TestServer.with(MemoryDisk(byteCount: 1 << 20), limits: limits) { server in
            let first = try RawClient(path: server.socketPath)
            try first.enter()
            let second = try RawClient(path: server.socketPath)
            try second.enter()
            let third = try RawClient(path: server.socketPath)
            #expect(third.isClosedByServer())
            first.socket.close()
            try RawClient(path: server.socketPath).enter()
            try second.request(3)
            #expect(try second.simpleReply().error == 0)
        }
    }
}

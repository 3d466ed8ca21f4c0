import ColdframeKit
import LinuxSystem
import Testing

@testable import NBDExport

/// Held requests, removal, stop, and clients that do not read.
@Suite struct LifetimeTests {
    private func waitUntil(_ isTrue: () -> Bool) async throws {
        for _ in 0..<500 where !isTrue() { try await Task.sleep(for: .milliseconds(10)) }
        #expect(isTrue())
    }

    @Test func aHeldFlushDelaysNeitherItsConnectionNorOthers() async throws {
        let held = MemoryDisk(byteCount: 1 << 20)
        held.holdFlush(true)
        try await TestServer.with(held) { server in
            server.add("other", MemoryDisk(byteCount: 1 << 20))
            let client = try RawClient(path: server.socketPath)
            try client.enter()
            try client.request(3, cookie: 1)
            try await waitUntil { held.counts.flushes == 1 }
            try client.request(0, cookie: 2, length: 4)
            #expect(try client.simpleReply() == (0, 2))
            _ = try client.receive(4)
            let other = try RawClient(path: server.socketPath)
            try other.enter("other")
            try other.request(3)
            #expect(try other.simpleReply().error == 0)
            held.holdFlush(false)
            #expect(try client.simpleReply() == (0, 1))
        }
    }

    @Test func allWorkersHeldStillLeaveOtherConnectionsFree() async throws {
        let held = MemoryDisk(byteCount: 1 << 20)
        held.holdFlush(true)
        try await TestServer.with(held) { server in
            let client = try RawClient(path: server.socketPath)
            try client.enter()
            for _ in 0..<10 { try client.request(3) }
            try await waitUntil { held.counts.flushes == 4 }
            let other = try RawClient(path: server.socketPath)
            try other.enter()
            try other.request(0, length: 1)
            #expect(try other.simpleReply().error == 0)
            held.holdFlush(false)
            for _ in 0..<10 { #expect(try client.simpleReply().error == 0) }
        }
    }

    @Test func stopWaitsForAHeldFlushWithoutBlocking() async throws {
        let disk = MemoryDisk(byteCount: 1 << 20)
        disk.holdFlush(true)
        let server = try TestServer()
        server.add("d", disk)
        let client = try RawClient(path: server.socketPath)
        try client.enter()
        try client.request(3)
        try await waitUntil { disk.counts.flushes == 1 }
        async let stopped: Void = server.end()
        #expect(client.isClosedByServer())
        disk.holdFlush(false)
        await stopped
        #expect(throws: SystemError.self) { try UnixSocket.connect(path: server.socketPath) }
    }

    @Test func stopWakesIdleAndNegotiatingClients() async throws {
        let server = try TestServer()
        server.add("d", MemoryDisk(byteCount: 1 << 20))
        let idle = try RawClient(path: server.socketPath)
        try idle.enter()
        let negotiating = try RawClient(path: server.socketPath)
        try negotiating.greet()
        await server.end()
        #expect(idle.isClosedByServer())
        #expect(negotiating.isClosedByServer())
    }

    @Test func stopTwiceIsFine() async throws {
        let server = try TestServer()
        await server.server.stop()
        await server.end()
    }

    @Test func aRemovedExportDisconnectsItsClientsOnly() async throws {
        try await TestServer.with(MemoryDisk(byteCount: 1 << 20)) { server in
            let export = server.add("gone", MemoryDisk(byteCount: 1 << 20))
            let stays = try RawClient(path: server.socketPath)
            try stays.enter()
            let goes = try RawClient(path: server.socketPath)
            try goes.enter("gone")
            #expect(export.hasConnections)
            server.server.exports.remove(export)
            await export.stop()
            #expect(!export.hasConnections)
            #expect(goes.isClosedByServer())
            try stays.request(3)
            #expect(try stays.simpleReply().error == 0)
            #expect(throws: RawClient.Closed.self) { try RawClient(path: server.socketPath).enter("gone") }
        }
    }

    @Test func aClientThatDoesNotReadStopsOnlyItself() async throws {
        let disk = MemoryDisk(byteCount: 8 << 20)
        try await TestServer.with(disk) { server in
            let slow = try RawClient(path: server.socketPath)
            try slow.enter()
            for _ in 0..<16 { try slow.request(0, length: 4 << 20) }
            let other = try RawClient(path: server.socketPath)
            try other.enter()
            for _ in 0..<50 {
                try other.request(0, length: 1)
                #expect(try other.simpleReply().error == 0)
                _ = try other.receive(1)
            }
            // No more is read ahead for it than its workers hold.
            #expect(disk.counts.reads <= 50 + 5)
            for _ in 0..<16 {
                #expect(try slow.simpleReply().error == 0)
                _ = try slow.receive(4 << 20)
            }
        }
    }

    @Test func requestsWaitForTheEndOfADrain() async throws {
        let disk = MemoryDisk(byteCount: 1 << 20)
        let server = try TestServer()
        let export = server.add("d", disk)
        let client = try RawClient(path: server.socketPath)
        try client.enter()
        await export.node.gate.beginDrain()
        try client.request(0, length: 1)
        try await Task.sleep(for: .milliseconds(50))
        #expect(disk.counts.reads == 0)
        export.node.gate.endDrain()
        #expect(try client.simpleReply().error == 0)
        await server.end()
    }

    @Test func aStaleSocketFileIsReplacedAndALiveOneIsNot() async throws {
        let directory = try Files.temporaryDirectory(prefix: "nbd-test-")
        defer { try? Files.removeTree(directory) }
        let path = directory + "/s"
        try UnixSocket.listen(path: path).close()
        #expect(Files.exists(path))
        let server = try Server(listener: try Listening.unix(path: path), socketPath: path)
        #expect(try Files.status(path).mode & 0o777 == 0o600)
        #expect(throws: ColdframeError.self) { try Listening.unix(path: path) }
        await server.stop()
        #expect(!Files.exists(path))
    }

    @Test func aPathThatIsTooLongIsNamed() {
        let path = "/tmp/" + String(repeating: "x", count: 120)
        #expect {
            try Listening.unix(path: path)
        } throws: {
            ($0 as? ColdframeError)?.message
                == "UNIX socket path '\(path)' is too long: Path must be less than 108 bytes"
        }
    }

    @Test func othersThanLoopbackAreRefused() {
        for host in ["0.0.0.0", "::", "192.0.2.1", "example.org"] {
            #expect {
                try Listening.loopback(host: host, port: 0)
            } throws: {
                ($0 as? ColdframeError)?.message.contains("loopback only") == true
            }
        }
    }

    @Test func loopbackServesOverTCP() async throws {
        let listener = try Listening.loopback(host: "127.0.0.1", port: 0)
        let port = try TCPSocket.localPort(of: listener)
        let server = try TestServer()
        let tcp = try Server(listener: listener, socketPath: nil)
        let disk = MemoryDisk(byteCount: 2 << 20)
        #expect(
            tcp.exports.insert(
                NamedExport(
                    name: "d", node: BlockNode(name: "d", driver: disk), isWritable: true, clusterByteCount: nil)))
        let result = try await Tool.run("nbdinfo", ["--size", "nbd://127.0.0.1:\(port)/d"], in: server.directory)
        #expect(result.output == "2097152\n")
        await tcp.stop()
        await server.end()
    }
}

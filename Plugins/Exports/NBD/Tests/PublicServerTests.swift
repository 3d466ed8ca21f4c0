import ColdframeKit
import LinuxSystem
import QAPI
import Testing

@testable import NBDExport

/// The server of `nbd-server-start`, as commands and the core use it.
@AgentActor @Suite struct PublicServerTests {
    private let server = PublicServer()
    private let node = BlockNode(name: "n", driver: MemoryDisk(byteCount: 1 << 20))

    /// Runs `body` with a directory, the server listening on `s` in it unless told otherwise; stops it afterwards.
    private func withDirectory(
        isRunning: Bool = true, _ body: @AgentActor (_ directory: String) async throws -> Void
    ) async throws {
        let directory = try Files.temporaryDirectory(prefix: "nbd-test-")
        defer { try? Files.removeTree(directory) }
        if isRunning { try server.start(.unix(path: directory + "/s"), maxConnections: 0) }
        do {
            try await body(directory)
        } catch {
            try? await server.stop()
            throw error
        }
        try? await server.stop()
    }

    private func add(_ id: String, _ name: String, onGone: @escaping @Sendable @AgentActor () async -> Void = {})
        async throws -> PublicExport
    {
        try await server.add(id: id, name: name, description: nil, node: node, isWritable: true, onGone: onGone)
    }

    private func message(_ body: @AgentActor () async throws -> Void) async -> String? {
        do {
            try await body()
            return nil
        } catch {
            return ColdframeError(wrapping: error).message
        }
    }

    @Test func withoutServerNothingCanBeAddedOrStopped() async throws {
        #expect(await message { _ = try await add("e", "n") } == "NBD server not running")
        #expect(await message { try await server.stop() } == "NBD server not running")
    }

    @Test func aSecondServerIsRefused() async throws {
        try await withDirectory { directory in
            #expect(
                await message { try server.start(.unix(path: directory + "/t"), maxConnections: 0) }
                    == "NBD server already running")
        }
    }

    @Test func aNameIsTakenOnce() async throws {
        try await withDirectory { _ in
            _ = try await add("e", "n")
            #expect(await message { _ = try await add("f", "n") } == "NBD server already has export named 'n'")
            _ = try await add("g", "m")
        }
    }

    @Test func namesAndDescriptionsAreBounded() async throws {
        try await withDirectory { _ in
            let long = String(repeating: "x", count: 4097)
            #expect(await message { _ = try await add("e", long) } == "export name '\(long)' too long")
        }
    }

    @Test func aFailedStartLeavesNoServer() async throws {
        try await withDirectory(isRunning: false) { directory in
            #expect(
                await message { try server.start(.unix(path: directory + "/no/s"), maxConnections: 0) }
                    == "Failed to bind socket to \(directory)/no/s: No such file or directory")
            try server.start(.unix(path: directory + "/s"), maxConnections: 0)
        }
    }

    @Test func stopEndsTheExportsAndSaysSo() async throws {
        try await withDirectory { directory in
            var gone: [String] = []
            _ = try await add("e", "n") { gone.append("e") }
            _ = try await add("f", "m") { gone.append("f") }
            let client = try RawClient(path: directory + "/s")
            try client.enter("n")
            try await server.stop()
            #expect(gone == ["e", "f"])
            #expect(client.isClosedByServer())
            #expect(!Files.exists(directory + "/s"))
            try server.start(.unix(path: directory + "/s"), maxConnections: 0)
        }
    }

    @Test func clientsAreSeenAndAStoppedExportIsForgotten() async throws {
        try await withDirectory { directory in
            let export = try await add("e", "n")
            #expect(!export.hasClients)
            let client = try RawClient(path: directory + "/s")
            try client.enter("n")
            #expect(export.hasClients)
            await export.stop()
            #expect(client.isClosedByServer())
            #expect(server.export(id: "e") == nil)
            _ = try await add("e", "n")
        }
    }

    @Test func oneConnectionOnlyIsSaidToClients() async throws {
        try await withDirectory(isRunning: false) { directory in
            try server.start(.unix(path: directory + "/s"), maxConnections: 1)
            _ = try await add("e", "n")
            let result = try await Tool.run(
                "nbdinfo", ["--can", "multi-conn", "nbd+unix:///n?socket=\(directory)/s"], in: directory)
            #expect(!result.isSuccess)
        }
    }

    @Test func aReadOnlyNodeIsNotExportedWritable() async throws {
        try await withDirectory { _ in
            let node = BlockNode(name: "ro", driver: MemoryDisk(byteCount: 1 << 20, isReadOnly: true))
            #expect(
                await message {
                    _ = try await server.add(
                        id: "e", name: "ro", description: nil, node: node, isWritable: true, onGone: {})
                } == "Cannot export read-only node as writable")
        }
    }

    private func inet(_ host: String, _ port: String, to: UInt16? = nil) -> SocketAddressLegacy {
        SocketAddressLegacy(
            type: .inet,
            branch: .inet(InetSocketAddressWrapper(data: InetSocketAddress(host: host, port: port, to: to))))
    }

    @Test func addressesAreTakenFromQAPI() throws {
        let unix = SocketAddressLegacy(
            type: .unix, branch: .unix(UnixSocketAddressWrapper(data: UnixSocketAddress(path: "/run/s"))))
        #expect(try ListenAddress(unix) == .unix(path: "/run/s"))
        #expect(
            try ListenAddress(inet("localhost", "10809", to: 10820))
                == .loopback(host: "localhost", ports: 10809...10820))
    }

    @Test func aPortIsANumber() async {
        #expect(
            await message { _ = try ListenAddress(inet("::1", "http")) }
                == "Port 'http' is not a number from 0 to 65535")
    }

    @Test func theNextPortIsTakenWhereOneIsBusy() throws {
        let busy = try Listening.loopback(host: "127.0.0.1", port: 0)
        let port = try TCPSocket.localPort(of: busy)
        // Others may hold some of them as well, but hardly all.
        let last = UInt16(clamping: Int(port) + 50)
        let (listener, path) = try ListenAddress.loopback(host: "127.0.0.1", ports: port...last).listen()
        let found = try TCPSocket.localPort(of: listener)
        #expect(path == nil)
        #expect(found > port)
    }

    @Test func writethroughForcesEveryWrite() async throws {
        try await withDirectory { directory in
            let disk = MemoryDisk(byteCount: 1 << 20)
            _ = try await server.add(
                id: "e", name: "n", description: nil, node: BlockNode(name: "n", driver: disk), isWritable: true,
                isWritethrough: true, onGone: {})
            let client = try RawClient(path: directory + "/s")
            try client.enter("n")
            try client.request(1, length: 1, payload: [1])
            #expect(try client.simpleReply().error == 0)
            #expect(disk.counts.forcedWrites == 1)
        }
    }
}

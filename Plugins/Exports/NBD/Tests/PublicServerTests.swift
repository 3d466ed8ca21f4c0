import ColdframeKit
import LinuxSystem
import QMPWire
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

    @Test func addressesAreTakenFromQAPI() throws {
        #expect(
            try ListenAddress(legacy: ["type": "unix", "data": ["path": "/run/s"]]) == .unix(path: "/run/s"))
        #expect(
            try ListenAddress(legacy: ["type": "inet", "data": ["host": "localhost", "port": "10809", "to": 10820]])
                == .loopback(host: "localhost", ports: 10809...10820))
    }

    @Test func addressesThatCannotBeServedAreNamed() async {
        #expect(
            await message { _ = try ListenAddress(legacy: ["type": "fd", "data": ["str": "3"]]) }
                == "The NBD server cannot listen on an address of type 'fd': use 'unix' or 'inet'")
        #expect(
            await message { _ = try ListenAddress(legacy: ["type": "inet", "data": ["host": "::1", "port": "http"]]) }
                == "Port 'http' is not a number from 0 to 65535")
        #expect(
            await message {
                _ = try ListenAddress(legacy: ["type": "unix", "data": ["path": "s", "abstract": true]])
            } == "The NBD server does not listen on abstract sockets: give a path in the file system")
    }
}

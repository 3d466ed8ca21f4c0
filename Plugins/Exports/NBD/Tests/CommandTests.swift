import ColdframeKit
import LinuxSystem
import QAPI
import Testing

@testable import NBDExport

/// The commands of the public server, through the module's value as the agent has it.
@AgentActor @Suite struct CommandTests {
    /// Runs `body` with an agent that has the nodes `n` and `ro`, and the server on `s` unless told otherwise.
    private func withAgent(
        isRunning: Bool = true, _ body: @AgentActor (FakeAgent, _ directory: String) async throws -> Void
    ) async throws {
        let directory = try Files.temporaryDirectory(prefix: "nbd-test-")
        defer { try? Files.removeTree(directory) }
        let agent = try FakeAgent(
            NBDExportModule.module,
            nodes: [
                BlockNode(name: "n", driver: MemoryDisk(byteCount: 1 << 20)),
                BlockNode(name: "ro", driver: MemoryDisk(byteCount: 1 << 20, isReadOnly: true)),
            ])
        if isRunning { try await start(agent, directory) }
        do {
            try await body(agent, directory)
        } catch {
            try? await agent.run(NbdServerStopCommand.self, QAPIEmpty())
            throw error
        }
        try? await agent.run(NbdServerStopCommand.self, QAPIEmpty())
    }

    private func start(_ agent: FakeAgent, _ directory: String, tlsCreds: String? = nil) async throws {
        let address = SocketAddressLegacy(
            type: .unix, branch: .unix(UnixSocketAddressWrapper(data: UnixSocketAddress(path: directory + "/s"))))
        try await agent.run(
            NbdServerStartCommand.self, NbdServerStartArguments(addr: address, tlsCreds: tlsCreds))
    }

    private func message(_ body: @AgentActor () async throws -> Void) async -> String? {
        do {
            try await body()
            return nil
        } catch {
            return ColdframeError(wrapping: error).message
        }
    }

    @Test func addNeedsAServer() async throws {
        try await withAgent(isRunning: false) { agent, _ in
            #expect(
                await message { try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "n")) }
                    == "NBD server not running")
            #expect(
                await message { try await agent.run(NbdServerStopCommand.self, QAPIEmpty()) }
                    == "NBD server not running")
        }
    }

    @Test func startTwiceIsRefused() async throws {
        try await withAgent { agent, directory in
            #expect(await message { try await start(agent, directory) } == "NBD server already running")
        }
    }

    @Test func startWithTLSIsRefused() async throws {
        try await withAgent(isRunning: false) { agent, directory in
            #expect(
                await message { try await start(agent, directory, tlsCreds: "c") }
                    == "No TLS credentials with id 'c'")
        }
    }

    @Test func addedExportsAreServedUnderTheirNames() async throws {
        try await withAgent { agent, directory in
            try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "n", writable: true))
            try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "n", name: "other"))
            #expect(agent.exports.keys.sorted() == ["n", "other"])
            let writable = try RawClient(path: directory + "/s")
            try writable.enter("n")
            try writable.request(1, length: 1, payload: [1])
            #expect(try writable.simpleReply().error == 0)
            let readOnly = try RawClient(path: directory + "/s")
            try readOnly.enter("other")
            try readOnly.request(1, length: 1, payload: [1])
            #expect(try readOnly.simpleReply().error == WireError.notPermitted.rawValue)
        }
    }

    @Test func aReadOnlyNodeIsExportedReadOnlyAllTheSame() async throws {
        try await withAgent { agent, directory in
            try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "ro", writable: true))
            let result = try await Tool.run(
                "nbdinfo", ["--is", "read-only", "nbd+unix:///ro?socket=\(directory)/s"], in: directory)
            #expect(result.isSuccess, "\(result.output)")
        }
    }

    @Test func addNamesWhatIsWrong() async throws {
        try await withAgent { agent, _ in
            #expect(
                await message { try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "zz")) }
                    == "Cannot find device='zz' nor node-name='zz'")
            #expect(
                await message {
                    try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "n", bitmap: "b"))
                } == "Bitmap 'b' is not found")
            #expect(
                await message {
                    try await agent.addExport(
                        BlockExportOptions(
                            type: "nbd", id: "e", nodeName: "n",
                            branch: BlockExportOptionsNbd(
                                bitmaps: [.external(BlockDirtyBitmap(node: "n", name: "b"))])))
                } == "Bitmap 'b' is not found")
        }
    }

    @Test func removeIsSafeUnlessHard() async throws {
        try await withAgent { agent, directory in
            try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "n"))
            let client = try RawClient(path: directory + "/s")
            try client.enter("n")
            #expect(
                await message {
                    try await agent.run(NbdServerRemoveCommand.self, NbdServerRemoveArguments(name: "n"))
                } == "export 'n' still in use")
            try await agent.run(NbdServerRemoveCommand.self, NbdServerRemoveArguments(name: "n", mode: .hard))
            #expect(client.isClosedByServer())
            #expect(agent.exports.isEmpty)
            #expect(
                await message {
                    try await agent.run(NbdServerRemoveCommand.self, NbdServerRemoveArguments(name: "n"))
                } == "Export 'n' is not found")
        }
    }

    @Test func stopEndsAllExports() async throws {
        try await withAgent { agent, directory in
            try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "n"))
            try await agent.run(NbdServerAddCommand.self, NbdServerAddArguments(device: "ro"))
            try await agent.run(NbdServerStopCommand.self, QAPIEmpty())
            #expect(agent.exports.isEmpty)
            #expect(!Files.exists(directory + "/s"))
            try await start(agent, directory)
        }
    }
}

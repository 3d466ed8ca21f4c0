import ColdframeKit
import LinuxSystem
import Testing

@testable import NBDExport

/// Private servers for guests.
@AgentActor @Suite struct GuestDiskServerTests {
    private func withServer(_ body: @AgentActor (GuestDiskServer, _ directory: String) async throws -> Void)
        async throws
    {
        let directory = try Files.temporaryDirectory(prefix: "nbd-test-")
        defer { try? Files.removeTree(directory) }
        let server = try await GuestDiskServer(socketPath: directory + "/disks")
        do {
            try await body(server, directory)
        } catch {
            await server.stop()
            throw error
        }
        await server.stop()
    }

    @Test func exportsComeAndGoWhileOthersAreUsed() async throws {
        try await withServer { server, _ in
            let first = BlockNode(name: "disk0", driver: MemoryDisk(byteCount: 1 << 20))
            try await server.add(first, exportName: "disk0", isWritable: true, ownWorkers: false)
            let guest = try RawClient(path: server.socketPath)
            try guest.enter("disk0")
            let barrier = BlockNode(name: "barrier", driver: MemoryDisk(byteCount: 4096))
            try await server.add(barrier, exportName: "barrier", isWritable: true, ownWorkers: true)
            let second = try RawClient(path: server.socketPath)
            try second.enter("barrier")
            await server.remove(exportName: "barrier")
            #expect(second.isClosedByServer())
            try guest.request(3)
            #expect(try guest.simpleReply().error == 0)
        }
    }

    @Test func aNameIsTakenOnceAndFreeAfterRemoval() async throws {
        try await withServer { server, _ in
            let node = BlockNode(name: "n", driver: MemoryDisk(byteCount: 4096))
            try await server.add(node, exportName: "n", isWritable: true, ownWorkers: false)
            await #expect(throws: ColdframeError.self) {
                try await server.add(node, exportName: "n", isWritable: true, ownWorkers: false)
            }
            await server.remove(exportName: "n")
            await server.remove(exportName: "n")
            try await server.add(node, exportName: "n", isWritable: true, ownWorkers: false)
        }
    }

    @Test func removalWaitsForAHeldFlush() async throws {
        try await withServer { server, _ in
            let disk = MemoryDisk(byteCount: 4096)
            try await server.add(
                BlockNode(name: "n", driver: disk), exportName: "n", isWritable: true, ownWorkers: true)
            disk.holdFlush(true)
            let client = try RawClient(path: server.socketPath)
            try client.enter("n")
            try client.request(3)
            while disk.counts.flushes == 0 { try await Task.sleep(for: .milliseconds(5)) }
            async let removed: Void = server.remove(exportName: "n")
            // Off the actor, where the removal runs.
            #expect(await BlockingPool.shared.run { client.isClosedByServer() })
            disk.holdFlush(false)
            await removed
        }
    }

    @Test func theSocketIsForThisUserOnly() async throws {
        try await withServer { server, _ in
            let mode = try Files.status(server.socketPath).mode
            #expect(mode & 0o777 == 0o600)
        }
    }
}

import ColdframeKit
import LinuxSystem
import Testing

@testable import NBDExport

/// Requests, right and wrong, byte by byte. After a refused request the connection goes on.
@Suite struct TransmissionTests {
    private let disk = MemoryDisk(byteCount: 1 << 20)

    private func withClient(
        structured: Bool = false, isWritable: Bool = true, _ body: (RawClient) throws -> Void
    ) async throws {
        try await TestServer.with(disk, isWritable: isWritable) { server in
            let client = try RawClient(path: server.socketPath)
            try client.enter(structured: structured)
            try body(client)
        }
    }

    /// The error of the next reply, and that the one after it is served.
    private func expectRefusal(_ client: RawClient, _ error: WireError) throws {
        #expect(try client.simpleReply() == (error.rawValue, 7))
        try client.request(3, cookie: 8)
        #expect(try client.simpleReply() == (0, 8))
    }

    @Test func aWriteIsReadBack() async throws {
        try await withClient { client in
            try client.request(1, cookie: 1, offset: 5, length: 3, payload: [1, 2, 3])
            #expect(try client.simpleReply() == (0, 1))
            try client.request(0, cookie: 2, offset: 4, length: 5)
            #expect(try client.simpleReply() == (0, 2))
            #expect(try client.receive(5) == [0, 1, 2, 3, 0])
        }
    }

    @Test func readOutsideIsInvalid() async throws {
        try await withClient { client in
            try client.request(0, offset: 1 << 20, length: 1)
            try expectRefusal(client, .invalid)
            try client.request(0, offset: .max, length: 4096)
            try expectRefusal(client, .invalid)
        }
    }

    @Test func writeOutsideHasNoSpace() async throws {
        try await withClient { client in
            try client.request(1, offset: (1 << 20) - 1, length: 2, payload: [1, 2])
            try expectRefusal(client, .noSpace)
            try client.request(6, offset: .max - 1, length: .max)
            try expectRefusal(client, .noSpace)
        }
        #expect(disk.counts.writes == 0)
    }

    @Test func tooLongAReadIsInvalid() async throws {
        try await withClient { client in
            try client.request(0, length: (32 << 20) + 1)
            try expectRefusal(client, .invalid)
            try client.request(0, length: .max)
            try expectRefusal(client, .invalid)
        }
    }

    @Test func tooLongAWriteIsInvalidAndItsPayloadSkipped() async throws {
        try await withClient { client in
            let payload = [UInt8](repeating: 0xaa, count: (32 << 20) + 1)
            try client.request(1, length: UInt32(payload.count), payload: payload)
            try expectRefusal(client, .invalid)
        }
        #expect(disk.counts.writes == 0)
    }

    @Test func theLongestReadIsServed() async throws {
        let disk = MemoryDisk(byteCount: 40 << 20)
        try await TestServer.with(disk) { server in
            let client = try RawClient(path: server.socketPath)
            try client.enter()
            try client.request(0, offset: 1, length: 32 << 20)
            #expect(try client.simpleReply().error == 0)
            #expect(try client.receive(32 << 20).count == 32 << 20)
        }
    }

    @Test func unknownCommandsAndFlagsAreInvalid() async throws {
        try await withClient { client in
            try client.request(99)
            try expectRefusal(client, .invalid)
            try client.request(0, flags: 0x8000, length: 16)
            try expectRefusal(client, .invalid)
            // DF belongs to structured replies.
            try client.request(0, flags: 4, length: 16)
            try expectRefusal(client, .invalid)
            try client.request(7, length: 4096)
            try expectRefusal(client, .invalid)
        }
    }

    @Test func aWrongMagicEndsTheConnection() async throws {
        try await withClient { client in
            try client.request(0, length: 16, magic: 0x1234_5678)
            #expect(client.isClosedByServer())
        }
    }

    @Test func aTruncatedWriteChangesNothing() async throws {
        try await withClient { client in
            try client.request(1, length: 4096, payload: [1, 2, 3])
            try client.socket.shutdown(.write)
            #expect(client.isClosedByServer())
        }
        #expect(disk.counts.writes == 0)
    }

    @Test func disconnectFinishesWhatWasAsked() async throws {
        try await withClient { client in
            for index in 0..<20 { try client.request(1, cookie: UInt64(index), offset: 0, length: 1, payload: [9]) }
            try client.request(2)
            for _ in 0..<20 { #expect(try client.simpleReply().error == 0) }
            #expect(client.isClosedByServer())
        }
    }

    @Test func aReadOnlyExportRefusesEveryChange() async throws {
        try await withClient(isWritable: false) { client in
            try client.request(1, length: 2, payload: [1, 2])
            try expectRefusal(client, .notPermitted)
            try client.request(4, length: 4096)
            try expectRefusal(client, .notPermitted)
            try client.request(6, length: 4096)
            try expectRefusal(client, .notPermitted)
        }
        #expect(disk.counts.writes == 0 && disk.counts.discards == 0 && disk.counts.zeroings.isEmpty)
    }

    @Test func forcedWritesAndFlushesReachTheDriver() async throws {
        try await withClient { client in
            try client.request(1, flags: 1, length: 1, payload: [1])
            #expect(try client.simpleReply().error == 0)
            try client.request(3)
            #expect(try client.simpleReply().error == 0)
            // A forced trim is a trim and a flush.
            try client.request(4, flags: 1, length: 65536)
            #expect(try client.simpleReply().error == 0)
            try client.request(6, flags: 1 | 2 | 16, length: 65536)
            #expect(try client.simpleReply().error == 0)
        }
        let counts = disk.counts
        #expect(counts.forcedWrites == 1 && counts.flushes == 2 && counts.discards == 1)
        #expect(counts.zeroings == [WriteFlags([.forceUnitAccess, .noFallback]).rawValue])
    }

    @Test(arguments: [(5, 5), (28, 28), (95, 95), (12, 12), (1, 1), (30, 1), (122, 28), (22, 22), (110, 5), (75, 75)])
    func driverErrorsKeepTheirMeaning(errno: Int, expected: UInt32) async throws {
        disk.fail(errno: Int32(errno))
        try await withClient { client in
            try client.request(0, length: 512)
            #expect(try client.simpleReply().error == expected)
        }
    }

    @Test func structuredErrorsSayWhy() async throws {
        disk.fail(errno: 5)
        try await withClient(structured: true) { client in
            try client.request(0, length: 512)
            let chunk = try client.chunk()
            #expect(chunk.isLast && chunk.type == WireChunk.error.rawValue)
            #expect(chunk.payload.prefix(4) == [0, 0, 0, 5])
            #expect(String(decoding: chunk.payload.dropFirst(6), as: UTF8.self) == "The disk was told to fail")
        }
    }

    @Test func structuredReadsTellHolesFromData() async throws {
        try fillWithPattern(disk, from: 64 << 10, byteCount: 64 << 10)
        try await withClient(structured: true) { client in
            try client.request(0, offset: 1000, length: 256 << 10)
            let first = try client.chunk()
            #expect(!first.isLast && first.type == WireChunk.offsetHole.rawValue)
            #expect(first.payload == [0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 252, 24])
            let second = try client.chunk()
            #expect(!second.isLast && second.type == WireChunk.offsetData.rawValue)
            #expect(second.payload.count == 8 + 65536)
            let third = try client.chunk()
            #expect(third.isLast && third.type == WireChunk.offsetHole.rawValue)
        }
    }

    @Test func dontFragmentMeansOneChunk() async throws {
        try fillWithPattern(disk, from: 64 << 10, byteCount: 64 << 10)
        try await withClient(structured: true) { client in
            try client.request(0, flags: 4, length: 256 << 10)
            let chunk = try client.chunk()
            #expect(chunk.isLast && chunk.type == WireChunk.offsetData.rawValue)
            #expect(chunk.payload.count == 8 + 256 << 10)
        }
    }

    @Test func moreExtentsThanAReplyTellsApart() async throws {
        let disk = MemoryDisk(byteCount: 32 << 20)
        for index in stride(from: 0, to: 512, by: 2) {
            try fillWithPattern(disk, from: UInt64(index) << 16, byteCount: 4096)
        }
        try await TestServer.with(disk) { server in
            let file = server.directory + "/f"
            let convert = try await Tool.run(
                "nbdcopy", ["--request-size=33554432", server.uri(), file], in: server.directory)
            #expect(convert.isSuccess, "\(convert.output)")
            let compare = try await Tool.run(
                "qemu-img", ["compare", "-f", "raw", "-F", "raw", server.uri(), file], in: server.directory)
            #expect(compare.isSuccess, "\(compare.output)")
        }
    }

    @Test func oneExtentIfOnlyOneIsAskedFor() async throws {
        try fillWithPattern(disk, from: 64 << 10, byteCount: 64 << 10)
        try await withClient(structured: true) { client in
            try client.request(7, flags: 8, length: 1 << 20)
            #expect(try client.chunk().payload == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3])
            try client.request(7, offset: 65536, length: 1 << 19)
            #expect(try client.chunk().payload == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 3])
            try client.request(7, length: 0)
            #expect(try client.chunk().type == WireChunk.error.rawValue)
        }
    }

    @Test func aReadOfNothingSucceeds() async throws {
        try await withClient { client in
            try client.request(0, length: 0)
            #expect(try client.simpleReply().error == 0)
        }
        try await withClient(structured: true) { client in
            try client.request(0, length: 0)
            #expect(try client.chunk() == RawClient.Chunk(isLast: true, type: 0, payload: []))
        }
    }
}

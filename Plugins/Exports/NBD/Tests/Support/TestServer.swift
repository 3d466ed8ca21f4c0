import ColdframeKit
import LinuxSystem
import Testing

@testable import NBDExport

/// A server on a socket in a directory of its own; both go at the end.
final class TestServer: Sendable {
    let directory: String
    let socketPath: String
    let server: Server

    init(limits: ServerLimits = ServerLimits()) throws {
        directory = try Files.temporaryDirectory(prefix: "nbd-test-")
        socketPath = directory + "/s"
        server = try Server(listener: try Listening.unix(path: socketPath), socketPath: socketPath, limits: limits)
    }

    /// Runs `body` with a server that has `disk` as its export `d`.
    static func with(
        _ disk: MemoryDisk, isWritable: Bool = true, limits: ServerLimits = ServerLimits(),
        _ body: (TestServer) async throws -> Void
    ) async throws {
        let server = try TestServer(limits: limits)
        server.add("d", disk, isWritable: isWritable)
        do {
            try await body(server)
        } catch {
            await server.end()
            throw error
        }
        await server.end()
    }

    @discardableResult
    func add(_ name: String, _ disk: MemoryDisk, isWritable: Bool = true) -> NamedExport {
        let export = NamedExport(
            name: name, description: "disk \(name)", node: BlockNode(name: name, driver: disk), isWritable: isWritable,
            clusterByteCount: UInt32(MemoryDisk.clusterByteCount))
        #expect(server.exports.insert(export))
        return export
    }

    func end() async {
        await server.stop()
        try? Files.removeTree(directory)
    }

    func uri(_ export: String = "d") -> String { "nbd+unix:///\(export)?socket=\(socketPath)" }
}

/// Fills a disk with a pattern that tells each 4 KiB apart.
func fillWithPattern(_ disk: MemoryDisk, from: UInt64 = 0, byteCount: UInt64) throws {
    var block = [UInt8](repeating: 0, count: 4096)
    for offset in stride(from: from, to: from + byteCount, by: 4096) {
        var value = offset &* 0x9e37_79b9_7f4a_7c15 | 1
        for index in block.indices {
            value ^= value << 13
            value ^= value >> 7
            value ^= value << 17
            block[index] = UInt8(truncatingIfNeeded: value)
        }
        try block.withUnsafeBytes { try disk.write($0, at: offset, flags: []) }
    }
}

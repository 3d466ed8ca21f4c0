import ColdframeKit
import LinuxSystem
import Testing

@testable import NBDExport

/// Clients that nobody here wrote.
@Suite struct ClientToolTests {
    @Test func nbdinfoSeesSizeFlagsAndBlockSizes() async throws {
        try await TestServer.with(MemoryDisk(byteCount: 10 << 20)) { server in
            let result = try await Tool.run("nbdinfo", ["--json", server.uri()], in: server.directory)
            #expect(result.isSuccess, "\(result.output)")
            for expected in [
                "\"protocol\": \"newstyle-fixed\"", "\"structured\": true", "\"export-size\": 10485760",
                "\"description\": \"disk d\"", "\"base:allocation\"", "\"is_read_only\": false",
                "\"can_cache\": true", "\"can_df\": true", "\"can_fast_zero\": true", "\"can_flush\": true",
                "\"can_fua\": true", "\"can_multi_conn\": true", "\"can_trim\": true", "\"can_zero\": true",
                "\"block_size_minimum\": 1", "\"block_size_preferred\": 65536", "\"block_size_maximum\": 33554432",
            ] { #expect(result.output.contains(expected), "\(expected) in \(result.output)") }
        }
    }

    @Test func nbdinfoListsAllExports() async throws {
        try await TestServer.with(MemoryDisk(byteCount: 1 << 20)) { server in
            server.add("second", MemoryDisk(byteCount: 2 << 20), isWritable: false)
            let result = try await Tool.run("nbdinfo", ["--list", "--json", server.uri("")], in: server.directory)
            #expect(result.isSuccess, "\(result.output)")
            #expect(result.output.contains("\"export-name\": \"d\""))
            #expect(result.output.contains("\"export-name\": \"second\""))
        }
    }

    @Test func aReadOnlyExportOffersNoChange() async throws {
        try await TestServer.with(MemoryDisk(byteCount: 1 << 20, isReadOnly: true), isWritable: false) { server in
            let result = try await Tool.run("nbdinfo", ["--json", server.uri()], in: server.directory)
            #expect(result.output.contains("\"is_read_only\": true"))
            #expect(result.output.contains("\"can_trim\": false"))
            #expect(result.output.contains("\"can_multi_conn\": true"))
        }
    }

    @Test func nbdinfoMapsHolesAndData() async throws {
        let disk = MemoryDisk(byteCount: 1 << 20)
        try fillWithPattern(disk, from: 128 << 10, byteCount: 64 << 10)
        try await TestServer.with(disk) { server in
            let result = try await Tool.run("nbdinfo", ["--map", server.uri()], in: server.directory)
            let lines = result.output.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
            #expect(
                lines.map { $0.prefix(3).joined(separator: " ") } == [
                    "0 131072 3", "131072 65536 0", "196608 851968 3",
                ])
        }
    }

    @Test func nbdcopyOverFourConnectionsCopiesBothWays() async throws {
        let byteCount: UInt64 = 24 << 20
        let source = MemoryDisk(byteCount: byteCount)
        try fillWithPattern(source, byteCount: 9 << 20)
        try fillWithPattern(source, from: 16 << 20, byteCount: 4 << 20)
        try await TestServer.with(source) { server in
            let target = MemoryDisk(byteCount: byteCount)
            server.add("t", target)
            let copy = try await Tool.run(
                "nbdcopy", ["--connections=4", "--requests=64", "--flush", server.uri(), server.uri("t")],
                in: server.directory)
            #expect(copy.isSuccess, "\(copy.output)")
            #expect(target.counts.flushes > 0)
            let compare = try await Tool.run(
                "qemu-img", ["compare", "-f", "raw", "-F", "raw", server.uri(), server.uri("t")], in: server.directory)
            #expect(compare.isSuccess, "\(compare.output)")
            #expect(compare.output.contains("Images are identical"))
        }
    }

    @Test func qemuImgReadsThroughHoles() async throws {
        let disk = MemoryDisk(byteCount: 8 << 20)
        try fillWithPattern(disk, from: 192 << 10, byteCount: 192 << 10)
        try fillWithPattern(disk, from: 5 << 20, byteCount: 1 << 20)
        try await TestServer.with(disk) { server in
            let file = server.directory + "/copy.raw"
            let convert = try await Tool.run(
                "qemu-img", ["convert", "-f", "raw", "-O", "raw", server.uri(), file], in: server.directory)
            #expect(convert.isSuccess, "\(convert.output)")
            let compare = try await Tool.run(
                "qemu-img", ["compare", "-f", "raw", "-F", "raw", server.uri(), file], in: server.directory)
            #expect(compare.isSuccess, "\(compare.output)")
            let map = try await Tool.run(
                "qemu-img", ["map", "-f", "raw", "--output=json", server.uri()], in: server.directory)
            #expect(map.output.contains("\"start\": 196608, \"length\": 196608"), "\(map.output)")
        }
    }

    @Test func qemuIOWritesDiscardsAndZeroes() async throws {
        let disk = MemoryDisk(byteCount: 4 << 20)
        try await TestServer.with(disk) { server in
            let result = try await Tool.run(
                "qemu-io",
                [
                    "-f", "raw", "-t", "writeback", "-d", "unmap", server.uri(), "-c", "write -P 17 0 1M", "-c",
                    "write -f -P 18 1000 3000",
                    "-c", "write -z 512k 64k", "-c", "write -z -u 256k 64k", "-c", "discard 768k 64k", "-c", "flush",
                    "-c", "read -P 18 1000 3000", "-c", "read -P 17 4000 96", "-c", "read -P 0 512k 64k",
                    "-c", "read -P 0 256k 64k", "-c", "read -P 0 768k 64k", "-c", "read -P 0 1M 3M",
                ], in: server.directory)
            #expect(result.isSuccess, "\(result.output)")
            #expect(!result.output.contains("verification failed"), "\(result.output)")
            let counts = disk.counts
            #expect(counts.forcedWrites == 1)
            #expect(counts.discards == 1)
            #expect(counts.flushes >= 1)
            #expect(counts.zeroings.contains(WriteFlags.mayUnmap.rawValue))
            #expect(counts.zeroings.contains(0))
        }
    }

    @Test func anUnknownExportIsNamedInTheError() async throws {
        try await TestServer.with(MemoryDisk(byteCount: 1 << 20)) { server in
            let result = try await Tool.run("qemu-img", ["info", server.uri("zz")], in: server.directory)
            #expect(!result.isSuccess)
            #expect(result.output.contains("server reported: There is no export 'zz'"), "\(result.output)")
        }
    }
}

import ColdframeKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Images that `qemu-img` made with other parameters than ours.
@Suite struct ForeignImageTests {
    static let parameters: [String] = [
        "compat=0.10", "cluster_size=512", "cluster_size=2M", "cluster_size=4k,refcount_bits=1", "refcount_bits=2",
        "refcount_bits=4,cluster_size=1k", "refcount_bits=8", "refcount_bits=32", "refcount_bits=64,cluster_size=512",
        "extended_l2=on", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M", "lazy_refcounts=on",
        "preallocation=metadata", "preallocation=falloc", "compression_type=zstd",
    ]

    private func make(_ fixture: ImageFixture, _ options: String) throws -> String {
        let path = fixture.path("a")
        try fixture.run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options, path, "9M"])
        var commands = [
            "write -P 1 0 1M", "write -P 2 1000000 300000", "write -z 512k 100k", "write -P 3 8M 1M",
            "discard 8200k 300k",
            "write -P 4 8191k 3k",
        ]
        if !options.contains("0.10") { commands.append("write -z -u 2M 1M") }
        try fixture.run("qemu-io", commands.flatMap { ["-c", $0] } + ["-d", "unmap", path])
        return path
    }

    @Test(arguments: parameters) func isReadAsQEMUReadsIt(options: String) throws {
        let fixture = try ImageFixture()
        let path = try make(fixture, options)
        let disk = try openImage(path, isReadOnly: true)
        #expect(try disk.readBytes(0, 9 << 20) == fixture.content(path))
        // Extents cover the disk without gaps.
        var position: UInt64 = 0
        while position < disk.byteCount {
            let extents = try disk.extents(at: position, byteCount: disk.byteCount - position, limit: 3)
            for extent in extents {
                #expect(extent.offset == position)
                let content = try disk.readBytes(extent.offset, Int(extent.byteCount))
                if case .zero = extent.kind { #expect(content.allSatisfy { $0 == 0 }) }
                position = extent.end
            }
        }
    }

    @Test(arguments: parameters) func isWrittenAndStaysClean(options: String) throws {
        let fixture = try ImageFixture()
        let path = try make(fixture, options)
        let before = try fixture.content(path)
        let disk = try openImage(path)
        let data = pattern(2_000_000, 3)
        try disk.writeBytes(data, at: 777_777)
        try disk.writeZeroes(at: 3 << 20, byteCount: 1 << 20, flags: .mayUnmap)
        try disk.discard(at: 5 << 20, byteCount: 1 << 20)
        if !options.contains("refcount_bits=1") {
            _ = try disk.createSnapshot(request("one"))
            try disk.writeBytes([1, 2, 3], at: 0)
            try disk.revert(toSnapshot: "1")
            try disk.deleteSnapshot(id: "1")
        }
        var expected = before
        expected.replaceSubrange(777_777..<2_777_777, with: data)
        for index in 3 << 20..<4 << 20 { expected[index] = 0 }
        for index in 5 << 20..<6 << 20 { expected[index] = 0 }
        #expect(try disk.readBytes(0, 9 << 20) == expected)
        try disk.close()
        try fixture.expectClean(path)
        #expect(try fixture.content(path) == expected)
    }

    @Test func aCompressedOverlayChain() throws {
        let fixture = try ImageFixture()
        let raw = fixture.path("raw")
        var data = [UInt8](repeating: 0, count: 2 << 20)
        for index in data.indices { data[index] = UInt8((index >> 10) & 0xFF) }
        try Files.replaceAtomically(raw, contents: data)
        for (cluster, type) in [("4k", "zlib"), ("64k", "zlib"), ("2M", "zlib"), ("64k", "zstd"), ("512", "zstd")] {
            let path = fixture.path("c\(cluster)\(type)")
            try fixture.run(
                "qemu-img",
                [
                    "convert", "-c", "-O", "qcow2", "-o", "cluster_size=\(cluster),compression_type=\(type)", "-f",
                    "raw", raw, path,
                ])
            let disk = try openImage(path, isReadOnly: true)
            #expect(try disk.readBytes(0, data.count) == data)
            #expect(try disk.readBytes(123_456, 7) == Array(data[123_456..<123_463]))
        }
    }

    @Test func informationIsAsQEMUShowsIt() throws {
        let fixture = try ImageFixture()
        let path = try make(fixture, "refcount_bits=8,lazy_refcounts=on")
        let image = try openImage(path, isReadOnly: true)
        #expect(image.clusterByteCount == 65536)
        let information = try image.information()
        #expect(information.isDirty == false)
        #expect(information.formatSpecific?.type == "qcow2")
        #expect(information.formatSpecific?.data["refcount-bits"] == .integer(8))
        #expect(information.formatSpecific?.data["lazy-refcounts"] == .bool(true))
        #expect(information.formatSpecific?.data["compat"] == .string("1.1"))
    }
}

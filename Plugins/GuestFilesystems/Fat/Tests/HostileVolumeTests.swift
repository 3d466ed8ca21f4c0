import ColdframeKit
import ConformanceKit
import Testing

@testable import FatFilesystem

/// For each rule that a volume can break the smallest damage that does, and what is said of it.
@Suite struct HostileVolumeTests {
    private static let sample = try? FilesystemSample(type: "fat", byteCount: 16 << 20, options: ["-F", "16"])

    /// A FAT16 volume to be damaged, with what is known of it.
    private struct Damaged {
        var bytes: [UInt8]
        let geometry: FatGeometry

        init() throws {
            bytes = try #require(HostileVolumeTests.sample).bytes
            geometry = try FatGeometry(MemoryVolume(bytes))
        }

        func open() throws -> FatFilesystem { try FatFilesystem(MemoryVolume(bytes)) }

        /// Where a file's entry lies.
        func entry(_ name: String) throws -> Int {
            let filesystem = try open()
            return Int(try #require(try filesystem.lookUp(name, in: filesystem.root)).number)
        }

        func cluster(_ name: String) throws -> Int { Int(bytes.littleEndian(UInt16.self, at: try entry(name) + 26)) }

        mutating func follow(_ cluster: Int, by next: UInt16) {
            bytes.storeLittleEndian(next, at: Int(geometry.table.lowerBound) + cluster * 2)
        }

        /// The error of reading a file to its end.
        func refusalOfReading(_ name: String) throws -> String? {
            let filesystem = try open()
            let file = try #require(try filesystem.lookUp(name, in: filesystem.root))
            let count = Int(try filesystem.attributes(of: file).byteCount)
            var buffer = [UInt8](repeating: 0, count: count)
            return try refusal {
                _ = try buffer.withMutableBytes { (buffer) throws(ColdframeError) in
                    try filesystem.read(file, into: buffer, at: 0)
                }
            }
        }
    }

    @Test func aLoopOfClustersIsAnError() throws {
        var damaged = try Damaged()
        let first = try damaged.cluster("large file.bin")
        damaged.follow(first + 5, by: UInt16(first + 2))
        #expect(try damaged.refusalOfReading("large file.bin")?.contains("is a loop") == true)
    }

    @Test func aFreeClusterInAFileIsAnError() throws {
        var damaged = try Damaged()
        let first = try damaged.cluster("large file.bin")
        damaged.follow(first + 5, by: 0)
        #expect(try damaged.refusalOfReading("large file.bin")?.contains("is free, and a file has it") == true)
        damaged.follow(first + 5, by: 0xFFF7)
        #expect(try damaged.refusalOfReading("large file.bin")?.contains("is damaged") == true)
        damaged.follow(first + 5, by: 0xFFF0)
        #expect(try damaged.refusalOfReading("large file.bin")?.contains("which is no cluster") == true)
    }

    @Test func aChainThatIsShorterThanItsFileIsAnError() throws {
        var damaged = try Damaged()
        damaged.follow(try damaged.cluster("large file.bin") + 5, by: 0xFFFF)
        #expect(try damaged.refusalOfReading("large file.bin")?.contains("ends before byte") == true)
    }

    @Test func aFileOutsideTheVolumeIsAnError() throws {
        var damaged = try Damaged()
        damaged.bytes.storeLittleEndian(UInt16(0xFFF6), at: try damaged.entry("SHORT.BIN") + 26)
        #expect(try damaged.refusalOfReading("SHORT.BIN")?.contains("the clusters are 2 to") == true)
    }

    @Test func aDirectoryInsideItselfEndsNobody() throws {
        var damaged = try Damaged()
        let filesystem = try damaged.open()
        let outer = try #require(try filesystem.lookUp("directory", in: filesystem.root))
        let inner = try #require(try filesystem.lookUp("inner", in: outer))
        let cluster = damaged.bytes.littleEndian(UInt16.self, at: Int(outer.number) + 26)
        damaged.bytes.storeLittleEndian(cluster, at: Int(inner.number) + 26)
        let walk = try FilesystemWalk(try damaged.open())
        #expect(walk.found["/directory/inner/inner/inner"] == [])
    }

    @Test func aDirectoryWithoutAnEndIsAnError() throws {
        var damaged = try Damaged()
        let entry = try damaged.entry("many")
        let cluster = Int(damaged.bytes.littleEndian(UInt16.self, at: entry + 26))
        let next = Int(
            damaged.bytes.littleEndian(UInt16.self, at: Int(damaged.geometry.table.lowerBound) + cluster * 2))
        // The second cluster leads back to the first: the end mark behind them is never reached.
        damaged.follow(next, by: UInt16(cluster))
        let filesystem = try damaged.open()
        let text = try refusal { _ = try filesystem.list(GuestFileID(UInt64(entry)), from: 0, limit: 100_000) }
        #expect(text?.contains("is a loop") == true)
    }

    @Test func aNameCannotLeaveItsDirectory() throws {
        var damaged = try Damaged()
        // The short name of a file that has no long one.
        let entry = try damaged.entry("SHORT.BIN")
        damaged.bytes.replaceSubrange(entry..<entry + 11, with: Array("../ETC  BIN".utf8))
        let filesystem = try damaged.open()
        let names = try filesystem.list(filesystem.root, from: 0, limit: 100).entries.map(\.name)
        #expect(names.contains("..\u{FFFD}ETC.BIN"))
        #expect(!names.contains { $0.contains("/") })
    }

    @Test func piecesThatDoNotBelongTogetherAreNoName() throws {
        var damaged = try Damaged()
        let entry = try damaged.entry("large file.bin")
        damaged.bytes[entry - 32 + 13] ^= 1
        let filesystem = try damaged.open()
        #expect(try filesystem.lookUp("large file.bin", in: filesystem.root) == nil)
        #expect(try filesystem.lookUp("LARGEF~1.BIN", in: filesystem.root) != nil)
    }

    @Test(
        arguments: [
            (11, [0, 3], "not the boot sector"), (13, [3], "not the boot sector"), (16, [0], "not the boot sector"),
            (17, [0, 0], "no room for an entry"), (22, [0xFF, 0xFF], "behind the filesystem's end"),
            (510, [0], "not the boot sector"),
        ] as [(Int, [UInt8], String)]) func aBootSectorThatCannotBeIsRefused(
            offset: Int, patch: [UInt8], text: String
        ) throws
    {
        var bytes = try #require(Self.sample).bytes
        bytes.replaceSubrange(offset..<offset + patch.count, with: patch)
        let found = try refusal { _ = try FatFilesystem(MemoryVolume(bytes)) }
        #expect(found?.contains(text) == true)
    }

    @Test func aVolumeThatWasCutShortIsRefused() throws {
        let bytes = try #require(Self.sample).bytes
        let text = try refusal { _ = try FatFilesystem(MemoryVolume(bytes.dropLast(512).map { $0 })) }
        #expect(text?.contains("it was cut short") == true)
    }
}

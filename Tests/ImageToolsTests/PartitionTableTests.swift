import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import ImageTools

/// Partition tables that sfdisk makes, and damaged ones.
@Suite struct PartitionTableTests {
    private func disk(_ bytes: [UInt8]) -> BlockNode {
        let file = MemoryFile()
        file.replace(with: bytes)
        return BlockNode(name: "disk", driver: file)
    }

    /// A disk of 64 MiB with the partitions of a script for sfdisk.
    private func partitioned(_ script: String, arguments: [String] = []) throws -> [UInt8] {
        let folder = try ToolFolder()
        let image = folder.path("disk")
        try Descriptor.open(image, [.readWrite, .create]).truncate(toByteCount: 64 << 20)
        try folder.write(Array(script.utf8), to: "script")
        let tool = [
            "-c", "/usr/sbin/sfdisk \(arguments.joined(separator: " ")) '\(image)' < '\(folder.path("script"))'",
        ]
        let made = try folder.run("sh", tool)
        guard made.status == 0 else { throw ColdframeError(.io, made.output) }
        return try Files.readAll(image, limit: 1 << 30)
    }

    private func sectors(_ counts: UInt64...) -> [UInt64] { counts.map { $0 * 512 } }

    @Test func primaryAndLogicalPartitionsAreFound() throws {
        let bytes = try partitioned(
            """
            label: dos
            start=2048, size=4096, type=c
            start=8192, size=102400, type=5
            start=10240, size=2048, type=83
            start=20480, size=3000, type=ef
            """)
        let found = try #require(try PartitionTable.read(disk(bytes)))
        #expect(found.map(\.number) == [1, 5, 6])
        #expect(found.map(\.start) == sectors(2048, 10240, 20480))
        #expect(found.map(\.byteCount) == sectors(4096, 2048, 3000))
        #expect(found.map(\.type) == ["0c", "83", "ef"])
    }

    private static let gpt = """
        label: gpt
        start=2048, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
        5: start=8192, size=8192, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
        """

    @Test func aGPTIsRead() throws {
        let found = try #require(try PartitionTable.read(disk(try partitioned(Self.gpt))))
        #expect(found.map(\.number) == [1, 5])
        #expect(found.map(\.start) == sectors(2048, 8192))
        #expect(found.map(\.byteCount) == sectors(4096, 8192))
        #expect(found[0].type == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
    }

    @Test func theCopyOfADamagedGPTIsRead() throws {
        let whole = try partitioned(Self.gpt)
        for place in [512 + 40, 512 + 16, 1024 + 3] {
            var bytes = whole
            bytes[place] ^= 0xFF
            #expect(try PartitionTable.read(disk(bytes)) == PartitionTable.read(disk(whole)))
            bytes[bytes.count - 512 + 24] ^= 0xFF
            #expect(try refusal { _ = try PartitionTable.read(disk(bytes)) }?.contains("damaged") == true)
        }
    }

    @Test func aChainOfLogicalPartitionsThatComesBackIsAnError() throws {
        var bytes = try partitioned("label: dos\nstart=2048, size=4096, type=5\nstart=2100, size=100, type=83\n")
        // The link of the extended partition leads to itself.
        bytes.replaceSubrange(
            2048 * 512 + 462..<2048 * 512 + 478, with: [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
        #expect(try refusal { _ = try PartitionTable.read(disk(bytes)) }?.contains("comes back") == true)
    }

    @Test func whatIsNoTableIsNone() throws {
        #expect(try PartitionTable.read(disk([])) == nil)
        #expect(try PartitionTable.read(disk([UInt8](repeating: 0, count: 4096))) == nil)
        #expect(try PartitionTable.read(disk(SeededGenerator.bytes(4096, seed: 3))) == nil)
    }

    @Test(arguments: [512, 1024, 4095, 4096, 8191]) func aDiskThatIsTooSmallForItsTableIsAnError(byteCount: Int) throws
    {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        bytes[450] = 0xEE
        (bytes[510], bytes[511]) = (0x55, 0xAA)
        bytes.storeLittleEndian(UInt32(1), at: 454)
        bytes.storeLittleEndian(UInt32(7), at: 458)
        #expect(throws: ColdframeError.self) { try PartitionTable.read(disk(bytes)) }
    }

    @Test func damageIsAnErrorAndNeverACrash() throws {
        let tables = try [
            partitioned(Self.gpt),
            partitioned("label: dos\nstart=2048, size=90000, type=5\nstart=2100, size=100\nstart=8000, size=100\n"),
        ]
        // Without the copy at the end, so that the first table counts.
        .map { Array($0.prefix(6 << 20)) }
        for seed in 0..<400 as Range<UInt64> {
            var generator = SeededGenerator(seed: seed)
            var bytes = tables[Int(seed % 2)]
            for _ in 0..<3 {
                let bases = [446, 512, 1024, 2048 * 512 + 446]
                let place = bases.randomElement(using: &generator)! + Int.random(in: 0..<64, using: &generator)
                bytes[place] = [0, 0xFF, UInt8.random(in: 0...255, using: &generator)].randomElement(using: &generator)!
            }
            let damaged = disk(bytes)
            do {
                for partition in try PartitionTable.read(damaged) ?? [] {
                    _ = try? NodeVolume(damaged, start: partition.start, byteCount: partition.byteCount)
                }
            } catch { #expect(!error.message.isEmpty) }
        }
    }
}

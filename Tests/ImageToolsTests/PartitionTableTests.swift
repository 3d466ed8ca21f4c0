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
        let listing = try #require(try PartitionTable.read(disk(bytes)))
        let found = listing.partitions
        #expect(listing.damage == nil)
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
        let found = try #require(try PartitionTable.read(disk(try partitioned(Self.gpt)))).partitions
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

    /// Two primary partitions, one behind the extended one that has four logical ones.
    private static let chain = """
        label: dos
        start=2048, size=4096, type=c
        start=8192, size=61440, type=5
        start=81920, size=4096, type=83
        start=10240, size=2048, type=83
        start=14336, size=2048, type=83
        start=18432, size=2048, type=83
        start=22528, size=2048, type=83
        """

    private enum ChainDamage: String, CaseIterable { case signature, loop, outside }

    /// Whatever link of the chain is damaged: what is before it is there, and all primary ones.
    @Test(arguments: 0..<4) func aDamagedLinkHidesNothingThatIsFoundWithoutIt(link: Int) throws {
        let whole = try partitioned(Self.chain)
        let all = try #require(try PartitionTable.read(disk(whole)))
        #expect(all.partitions.map(\.number) == [1, 3, 5, 6, 7, 8] && all.damage == nil)
        // The links lie where sfdisk has put them: the first entry of each leads to its partition, the second on.
        let places = try self.links(whole)
        try #require(places.count == 4)
        for damage in ChainDamage.allCases {
            var bytes = whole
            let kept: Int
            let place = places[link] * 512
            switch damage {
            case .signature:
                bytes[place + 511] = 0
                kept = link
            case .loop:
                bytes.replaceSubrange(
                    place + 462..<place + 478, with: [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
                kept = link + 1
            case .outside:
                bytes.replaceSubrange(
                    place + 462..<place + 478, with: [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0xF0, 1, 0, 0, 0])
                kept = link + 1
            }
            let found = try #require(try PartitionTable.read(disk(bytes)))
            #expect(found.partitions == Array(all.partitions.prefix(2 + kept)), "\(damage) at link \(link)")
            let told = ["signature": "Sector \(places[link]) is no table", "loop": "comes back", "outside": "logical"]
            #expect(found.damage?.contains(try #require(told[damage.rawValue])) == true, "\(found.damage ?? "none")")
        }
    }

    /// Sectors of the tables of an image's logical partitions.
    private func links(_ bytes: [UInt8]) throws -> [Int] {
        let base = 8192
        var places = [base]
        while case let next = Int(bytes.littleEndian(UInt32.self, at: (places.last ?? base) * 512 + 470)), next != 0 {
            places.append(base + next)
        }
        return places
    }

    @Test func logicalPartitionsOfSeveralChainsHaveNumbersOfTheirOwn() throws {
        var bytes = try partitioned(Self.chain)
        // The third entry becomes a chain as well, with one partition.
        bytes[446 + 2 * 16 + 4] = 5
        bytes.replaceSubrange(81920 * 512..<81921 * 512, with: bytes[8192 * 512..<8193 * 512])
        bytes.replaceSubrange(81920 * 512 + 462..<81920 * 512 + 478, with: [UInt8](repeating: 0, count: 16))
        let found = try #require(try PartitionTable.read(disk(bytes)))
        #expect(found.partitions.map(\.number) == [1, 5, 6, 7, 8, 9] && found.damage == nil)
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
                let found = try PartitionTable.read(damaged)
                #expect(found?.damage?.isEmpty != true)
                for partition in found?.partitions ?? [] {
                    _ = try? NodeVolume(damaged, start: partition.start, byteCount: partition.byteCount)
                }
            } catch { #expect(!error.message.isEmpty) }
        }
    }
}

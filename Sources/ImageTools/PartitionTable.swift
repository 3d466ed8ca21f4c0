import ColdframeKit

/// A part of a disk as its partition table has it.
public struct Partition: Sendable, Equatable {
    /// The number that Linux gives it: 1 to 4 for the primary ones of an MBR, from 5 on for the logical ones.
    public var number: Int
    /// Bytes of the disk. Not checked against it: a disk that was cut short still has its first partitions.
    public var start: UInt64
    public var byteCount: UInt64
    /// The table's own word for what is in it: `0c` in an MBR, a UUID in a GPT.
    public var type: String
}

/// What a disk's partition table says.
public struct PartitionListing: Sendable, Equatable {
    /// Sorted by number.
    public var partitions: [Partition] = []
    /// Why the table may have more partitions than could be found, for people; nil if all of it was read.
    public var damage: String?
}

/// Reads the partition table of a disk: GPT, or MBR with logical partitions.
///
/// The disk is a guest's: offsets are checked, the number of partitions is bounded. A chain of logical partitions that is
/// damaged, or a loop, ends there: it hides nothing that was found without it.
public enum PartitionTable {
    /// At most so many; the rest of a larger table is not looked at.
    static let partitionLimit = 1024
    /// What an MBR counts in.
    private static let sector: UInt64 = 512

    /// nil if the disk has no partition table. Throws `.corrupt` for a GPT that is damaged as well as its copy.
    public static func read(_ disk: BlockNode) throws(ColdframeError) -> PartitionListing? {
        let volume = NodeVolume(disk)
        guard volume.byteCount >= sector else { return nil }
        let head = try volume.part(byteCount: Int(sector), at: 0, "The first sector")
        guard head[510] == 0x55, head[511] == 0xAA else { return nil }
        let entries = MBREntry.all(head)
        guard entries.allSatisfy({ $0.status & 0x7F == 0 }) else { return nil }
        if entries.contains(where: { $0.type == 0xEE }) {
            return PartitionListing(partitions: try GUIDPartitionTable.read(volume))
        }
        var listing = PartitionListing()
        var logical: [Partition] = []
        for (index, entry) in entries.enumerated() where entry.type != 0 && entry.sectorCount != 0 {
            guard entry.isExtended else {
                listing.partitions.append(partition(index + 1, UInt64(entry.firstSector), entry))
                continue
            }
            do { try followChain(volume, UInt64(entry.firstSector), &logical) } catch { listing.damage = error.message }
        }
        listing.partitions += logical
        return listing
    }

    /// An extended partition is a chain: each link has an MBR of its own, with a partition and where the next one is.
    /// On a throw `partitions` has those before the damage.
    private static func followChain(
        _ volume: NodeVolume, _ base: UInt64, _ partitions: inout [Partition]
    ) throws(ColdframeError) {
        var visited: Set<UInt64> = []
        var link = base
        while true {
            guard visited.insert(link).inserted else {
                throw ColdframeError(.corrupt, "The chain of logical partitions comes back to sector \(link)")
            }
            guard visited.count <= partitionLimit else {
                throw ColdframeError(.corrupt, "There are more than \(partitionLimit) logical partitions")
            }
            let bytes = try volume.part(
                byteCount: Int(sector), at: link * sector, "The table of a logical partition")
            guard bytes[510] == 0x55, bytes[511] == 0xAA else {
                throw ColdframeError(.corrupt, "Sector \(link) is no table of a logical partition")
            }
            let entries = MBREntry.all(bytes)
            if let own = entries.first(where: { $0.type != 0 && !$0.isExtended && $0.sectorCount != 0 }) {
                partitions.append(partition(5 + partitions.count, link + UInt64(own.firstSector), own))
            }
            guard let next = entries.first(where: { $0.isExtended && $0.sectorCount != 0 }) else { return }
            // Counted from the first link. Both have 32 bits.
            link = base + UInt64(next.firstSector)
        }
    }

    private static func partition(_ number: Int, _ firstSector: UInt64, _ entry: MBREntry) -> Partition {
        let type = String(entry.type, radix: 16)
        return Partition(
            number: number, start: firstSector * sector, byteCount: UInt64(entry.sectorCount) * sector,
            type: type.count < 2 ? "0" + type : type)
    }
}

/// One of the four entries of an MBR.
private struct MBREntry {
    let status: UInt8
    let type: UInt8
    let firstSector: UInt32
    let sectorCount: UInt32

    var isExtended: Bool { [0x05, 0x0F, 0x85].contains(type) }

    static func all(_ bytes: [UInt8]) -> [MBREntry] {
        [446, 462, 478, 494].map { start in
            MBREntry(
                status: bytes[start], type: bytes[start + 4],
                firstSector: bytes.littleEndian(UInt32.self, at: start + 8),
                sectorCount: bytes.littleEndian(UInt32.self, at: start + 12))
        }
    }
}

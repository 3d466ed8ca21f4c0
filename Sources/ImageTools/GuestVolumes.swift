import ColdframeKit

/// A part of a disk on which a filesystem may be.
public struct FoundVolume: Sendable {
    /// nil for the disk as a whole.
    public let partition: Partition?
    public let volume: NodeVolume
    /// Who reads its filesystem; nil if nobody recognises one.
    public let factory: (any GuestFilesystemFactory)?
}

/// Where filesystems may be on a disk.
public struct FoundVolumes: Sendable {
    public var volumes: [FoundVolume]
    /// Why there may be more, for people; nil if all was looked at.
    public var damage: String?
}

/// Looks for filesystems on a disk.
public enum GuestVolumes {
    /// The disk itself if a filesystem is on it as a whole, else its partitions. A partition that lies outside the disk is left out.
    public static func find(
        on disk: BlockNode, _ factories: [any GuestFilesystemFactory]
    ) throws(ColdframeError) -> FoundVolumes {
        let whole = NodeVolume(disk)
        if let factory = try reader(of: whole, factories) {
            return FoundVolumes(volumes: [FoundVolume(partition: nil, volume: whole, factory: factory)])
        }
        let table = try PartitionTable.read(disk) ?? PartitionListing()
        var found = FoundVolumes(volumes: [], damage: table.damage)
        for partition in table.partitions {
            guard
                let volume = try? NodeVolume(disk, start: partition.start, byteCount: partition.byteCount)
            else { continue }
            found.volumes.append(
                FoundVolume(partition: partition, volume: volume, factory: try reader(of: volume, factories)))
        }
        return found
    }

    private static func reader(
        of volume: NodeVolume, _ factories: [any GuestFilesystemFactory]
    ) throws(ColdframeError) -> (any GuestFilesystemFactory)? {
        for factory in factories where try factory.recognises(volume) { return factory }
        return nil
    }
}

import ColdframeKit

/// Where things lie on a FAT volume. Checked as a whole when it is made; all offsets are bytes of the volume.
struct FatGeometry: Sendable {
    enum Width: UInt32, Sendable { case fat12 = 12, fat16 = 16, fat32 = 32 }

    let width: Width
    let clusterByteCount: UInt64
    /// The file allocation table that is in use.
    let table: Range<UInt64>
    /// The root directory of FAT12 and FAT16; empty for FAT32.
    let fixedRoot: Range<UInt64>
    /// The root directory's first cluster; 0 where it is `fixedRoot`.
    let rootCluster: UInt32
    /// The clusters, of which the first has the number 2.
    let data: Range<UInt64>
    let clusterCount: UInt32
    let information: GuestFilesystemInformation

    /// Reads the boot sector.
    init(_ volume: any GuestVolume) throws(ColdframeError) {
        let boot = FatBootSector(try volume.part(byteCount: FatBootSector.byteCount, at: 0, "The boot sector"))
        guard boot.isPlausible else {
            throw ColdframeError(.corrupt, "The first sector is not the boot sector of a FAT filesystem")
        }
        // Every factor has at most 32 bits, and the sum of the products is below 2^46.
        let sector = boot.sectorByteCount
        let byteCount = boot.sectorCount * sector
        guard byteCount <= volume.byteCount else {
            throw ColdframeError(
                .corrupt,
                "The filesystem has \(byteCount) bytes and its volume \(volume.byteCount): it was cut short")
        }
        clusterByteCount = boot.sectorsPerCluster * sector
        let tableByteCount = boot.tableSectorCount * sector
        let tables = boot.reservedSectorCount * sector
        let rootStart = tables + boot.tableCount * tableByteCount
        let dataStart = rootStart + (boot.rootEntryCount * 32 + sector - 1) / sector * sector
        guard dataStart < byteCount else {
            throw ColdframeError(
                .corrupt, "The tables end at \(dataStart), behind the filesystem's end at \(byteCount)")
        }
        let counted = (byteCount - dataStart) / clusterByteCount
        width = boot.isFat32 ? .fat32 : counted < 4085 ? .fat12 : .fat16
        // Clusters that the table has no place for cannot be used.
        let entries = tableByteCount * 8 / UInt64(width.rawValue)
        clusterCount = UInt32(clamping: min(counted, entries < 2 ? 0 : entries - 2, 0x0FFF_FFF4))
        guard clusterCount > 0 else {
            throw ColdframeError(.corrupt, "The filesystem of \(byteCount) bytes has no room for a cluster")
        }
        data = dataStart..<dataStart + UInt64(clusterCount) * clusterByteCount

        let activeTable = boot.isFat32 && boot.flags & 0x80 != 0 ? UInt64(boot.flags & 0xF) : 0
        guard activeTable < boot.tableCount else {
            throw ColdframeError(
                .corrupt, "Table \(activeTable) is said to be in use, and there are \(boot.tableCount)")
        }
        let tableStart = tables + activeTable * tableByteCount
        table = tableStart..<tableStart + tableByteCount
        if boot.isFat32 {
            guard boot.version == 0 else {
                throw ColdframeError(.unsupported, "FAT32 of version \(boot.version) is not read; only 0 is known")
            }
            guard boot.rootEntryCount == 0 else {
                throw ColdframeError(.corrupt, "A FAT32 filesystem has no root directory of fixed size")
            }
            rootCluster = boot.rootCluster
            fixedRoot = 0..<0
        } else {
            guard boot.rootEntryCount > 0 else {
                throw ColdframeError(.corrupt, "The root directory has no room for an entry")
            }
            rootCluster = 0
            fixedRoot = rootStart..<rootStart + boot.rootEntryCount * 32
        }
        information = GuestFilesystemInformation(
            variant: "FAT\(width.rawValue)", label: boot.label, identity: boot.identity, byteCount: byteCount)
        if boot.isFat32 { try check(cluster: rootCluster, "The root directory") }
    }

    func isCluster(_ number: UInt32) -> Bool { number >= 2 && number - 2 < clusterCount }

    func check(cluster number: UInt32, _ what: @autoclosure () -> String) throws(ColdframeError) {
        guard isCluster(number) else {
            throw ColdframeError(
                .corrupt, "\(what()) is said to be at cluster \(number); the clusters are 2 to \(clusterCount + 1)")
        }
    }

    /// Where a cluster begins, whose number was checked.
    func offset(ofCluster number: UInt32) -> UInt64 {
        data.lowerBound + UInt64(number - 2) * clusterByteCount
    }
}

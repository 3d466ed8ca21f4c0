import ColdframeKit

/// An open FAT filesystem. Nothing changes after it was opened but what is kept of the table: any thread.
///
/// A file's number is the place of its entry on the volume; the root directory, which has none, is 0.
final class FatFilesystem: GuestFilesystem {
    let typeName = "fat"
    let threadModel = ThreadModel.parallel
    /// The pieces of the table, and something for the places of readers.
    let memoryByteLimit = FatTable.keptPieceCount * Int(FatTable.pieceByteCount) + (64 << 10)
    let root = GuestFileID(0)
    var information: GuestFilesystemInformation { geometry.information }

    private let volume: any GuestVolume
    private let geometry: FatGeometry
    private let chains: ClusterChains

    init(_ volume: any GuestVolume) throws(ColdframeError) {
        self.volume = volume
        geometry = try FatGeometry(volume)
        chains = ClusterChains(volume, geometry)
    }

    func attributes(of file: GuestFileID) throws(ColdframeError) -> GuestFileAttributes {
        file == root ? GuestFileAttributes(kind: .directory, byteCount: 0) : try entry(file).attributes
    }

    func lookUp(_ name: String, in directory: GuestFileID) throws(ColdframeError) -> GuestFileID? {
        var files = try open(directory, from: 0)
        let folded = name.lowercased()
        var other: GuestFileID?
        while let found = try files.next() {
            if found.name == name { return GuestFileID(found.offset) }
            // Names that differ in case only are one name.
            if other == nil, found.name.lowercased() == folded || found.shortName.lowercased() == folded {
                other = GuestFileID(found.offset)
            }
        }
        return other
    }

    func list(
        _ directory: GuestFileID, from position: UInt64, limit: Int
    ) throws(ColdframeError) -> GuestDirectoryPage {
        guard position <= FatDirectory.slotLimit else {
            throw ColdframeError(.invalidArgument, "A directory has no position \(position)")
        }
        var files = try open(directory, from: position)
        var page = GuestDirectoryPage(entries: [], next: nil)
        while let found = try files.next() {
            page.entries.append(
                GuestDirectoryEntry(name: found.name, file: GuestFileID(found.offset), kind: found.entry.kind))
            if page.entries.count >= limit {
                page.next = found.next
                break
            }
        }
        return page
    }

    func read(
        _ file: GuestFileID, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(ColdframeError) -> Int {
        guard file != root else { throw isADirectory(file) }
        let entry = try entry(file)
        guard !entry.isDirectory else { throw isADirectory(file) }
        guard offset < entry.byteCount, !buffer.isEmpty else { return 0 }
        let count = Int(min(UInt64(buffer.count), entry.byteCount - offset))
        try chains.read(
            entry.firstCluster, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), at: offset)
        return count
    }

    private func isADirectory(_ file: GuestFileID) -> ColdframeError {
        ColdframeError(.invalidArgument, "File \(file.number) is a directory", errno: 21)
    }

    private func open(_ directory: GuestFileID, from slot: UInt64) throws(ColdframeError) -> FatDirectory {
        var cluster = geometry.rootCluster
        if directory != root {
            let entry = try entry(directory)
            guard entry.isDirectory else {
                throw ColdframeError(.invalidArgument, "File \(directory.number) is no directory", errno: 20)
            }
            cluster = entry.firstCluster
            try geometry.check(cluster: cluster, "A directory")
        }
        return FatDirectory(volume, geometry, chains, firstCluster: cluster, from: slot)
    }

    private func entry(_ file: GuestFileID) throws(ColdframeError) -> FatEntry {
        let offset = file.number
        guard offset % UInt64(FatEntry.byteCount) == 0,
            geometry.fixedRoot.contains(offset) || geometry.data.contains(offset)
        else { throw ColdframeError(.invalidArgument, "\(offset) is no file of this filesystem") }
        let bytes = try volume.part(byteCount: FatEntry.byteCount, at: offset, "The entry of a file")
        let width = geometry.width
        let entry = bytes.withBytes { FatEntry.kind($0) == .file ? FatEntry($0, width) : nil }
        guard let entry else { throw ColdframeError(.invalidArgument, "\(offset) is no file of this filesystem") }
        return entry
    }
}

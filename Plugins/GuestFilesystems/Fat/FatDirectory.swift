import ColdframeKit

/// A directory that is being gone through from one of its slots on. One thread.
struct FatDirectory {
    /// The specification's bound: 2 MiB.
    static let slotLimit: UInt64 = 65_536
    private static let chunkByteCount: UInt64 = 4096

    /// A file as the directory has it.
    struct Found {
        let name: String
        let shortName: String
        let entry: FatEntry
        /// Where its entry lies on the volume.
        let offset: UInt64
        /// The slot behind it.
        let next: UInt64
    }

    private let volume: any GuestVolume
    private let geometry: FatGeometry
    private let chains: ClusterChains
    /// 0 for the root directory of FAT12 and FAT16.
    private let firstCluster: UInt32
    private var slot: UInt64
    /// A piece that lies in one cluster, and where it begins.
    private var chunk: [UInt8] = []
    private var chunkSlot: UInt64 = 0
    private var chunkOffset: UInt64 = 0

    init(
        _ volume: any GuestVolume, _ geometry: FatGeometry, _ chains: ClusterChains, firstCluster: UInt32,
        from slot: UInt64
    ) {
        self.volume = volume
        self.geometry = geometry
        self.chains = chains
        self.firstCluster = firstCluster
        self.slot = slot
    }

    /// The next file; nil at the end.
    mutating func next() throws(ColdframeError) -> Found? {
        var long = LongName()
        while slot < Self.slotLimit {
            guard let position = try load() else { return nil }
            let offset = chunkOffset + UInt64(position)
            var found: Found?
            var isEnd = false
            let (own, width) = (slot, geometry.width)
            chunk.withBytes { bytes in
                let entry = UnsafeRawBufferPointer(rebasing: bytes[position..<position + FatEntry.byteCount])
                switch FatEntry.kind(entry) {
                case .end: isEnd = true
                case .longName: long.add(entry, at: own)
                case .free, .label: long.clear()
                case .file:
                    let short = FatNames.short(entry)
                    // The entries for the directory itself and the one above it.
                    if short != ".", short != ".." {
                        found = Found(
                            name: GuestDirectoryEntry.presentable(long.name(of: entry) ?? short),
                            shortName: GuestDirectoryEntry.presentable(short), entry: FatEntry(entry, width),
                            offset: offset, next: own + 1)
                    }
                    long.clear()
                }
            }
            if isEnd { return nil }
            slot += 1
            if let found { return found }
        }
        if try load() != nil {
            throw ColdframeError(.corrupt, "A directory has more than \(Self.slotLimit) entries")
        }
        return nil
    }

    /// Sees to it that the chunk has the slot; its place there, or nil behind the directory's end.
    private mutating func load() throws(ColdframeError) -> Int? {
        let size = UInt64(FatEntry.byteCount)
        if slot >= chunkSlot, slot < chunkSlot + UInt64(chunk.count) / size { return Int((slot - chunkSlot) * size) }
        let start = slot * size
        if firstCluster == 0 {
            let length = geometry.fixedRoot.upperBound - geometry.fixedRoot.lowerBound
            guard start < length else { return nil }
            chunkOffset = geometry.fixedRoot.lowerBound + start
            try fill(min(Self.chunkByteCount, length - start))
        } else {
            let cluster = geometry.clusterByteCount
            guard let offset = try chains.offset(ofCluster: start / cluster, of: firstCluster) else { return nil }
            chunkOffset = offset + start % cluster
            try fill(min(Self.chunkByteCount, cluster - start % cluster))
        }
        chunkSlot = slot
        return 0
    }

    private mutating func fill(_ byteCount: UInt64) throws(ColdframeError) {
        chunk = try volume.part(byteCount: Int(byteCount), at: chunkOffset, "A part of a directory")
    }
}

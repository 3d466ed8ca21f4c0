import ColdframeKit
import LinuxSystem

/// Makes an empty sidecar for a raw image, whose content stays as it is.
struct SidecarCreation: Sendable {
    private let clusterBits: UInt32
    private let uuid: [UInt8]
    private let seed: UInt32

    /// - Parameter uuid: 16 bytes, and `seed`: random unless a test wants the same bytes every time.
    init(
        clusterByteCount: UInt64 = Limits.defaultClusterByteCount, uuid: [UInt8] = SystemRandom.bytes(16),
        seed: UInt32 = SystemRandom.bytes(4).reduce(0) { $0 << 8 | UInt32($1) }
    ) throws(ColdframeError) {
        let bits = UInt32(clusterByteCount.trailingZeroBitCount)
        guard clusterByteCount.nonzeroBitCount == 1, Limits.clusterBits.contains(bits) else {
            throw ColdframeError(.invalidArgument, "'cluster-size' must be a power of two from 16384 to 2097152")
        }
        clusterBits = bits
        self.uuid = uuid
        self.seed = seed
    }

    func run(raw: BlockNode, sidecar: BlockNode, rawByteCount: UInt64? = nil) throws(ColdframeError) {
        try refuseExisting(sidecar)
        if let rawByteCount, rawByteCount != raw.byteCount {
            guard let resizable = raw.driver as? any Resizable else {
                throw ColdframeError(
                    .unsupported,
                    "Node '\(raw.name)' cannot change its size: driver '\(raw.driver.driverName)' is not resizable")
            }
            try resizable.resize(toByteCount: rawByteCount)
        }
        try raw.direct.flush()
        let file = SidecarFile(sidecar, clusterBits: clusterBits)
        let segment = ClusterRun(
            first: 1, count: UInt32(LogWriter.firstClusterCount(clusterBits: UInt64(clusterBits))))
        try file.ensureByteCount((UInt64(segment.count) + 1) << UInt64(clusterBits))
        // What was in the file before must not be taken for a record or a superblock.
        for offset in Superblock.slotOffsets + [file.offset(ofCluster: segment.first)] {
            try file.write([UInt8](repeating: 0, count: Superblock.byteCount), at: offset)
        }
        try file.flush()
        let superblock = Superblock(
            uuid: uuid, sequence: 0, clusterBits: clusterBits, isInUse: false, logCluster: segment.first,
            logClusterCount: segment.count, logSeed: seed, recordCount: 0, stamp: try RawStamp(raw))
        try file.write(superblock.encoded, at: Superblock.slot(ofSequence: superblock.sequence))
        try file.flush()
    }

    /// A sidecar is not overwritten: the snapshots in it would be gone without a word.
    private func refuseExisting(_ sidecar: BlockNode) throws(ColdframeError) {
        for offset in Superblock.slotOffsets where sidecar.byteCount >= offset + 8 {
            var magic = [UInt8](repeating: 0, count: 8)
            try magic.withMutableBytes { buffer throws(ColdframeError) in
                try sidecar.direct.read(into: buffer, at: offset)
            }
            guard magic != Superblock.magic else {
                throw ColdframeError(
                    .alreadyExists,
                    "'\(sidecar.driver.displayFilename)' holds a sidecar already: empty the file first if its "
                        + "snapshots are to go")
            }
        }
    }
}

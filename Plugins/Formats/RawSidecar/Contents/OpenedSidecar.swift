import ColdframeKit
import LinuxSystem

/// A sidecar as it was found: read and checked, nothing written.
struct OpenedSidecar {
    let file: SidecarFile
    let superblock: Superblock
    var scan: LogScan
    var contents = Contents()
    var allocator = ClusterAllocator()

    /// Reads the sidecar in `node`. A damaged one throws, naming what is wrong and what can be done.
    static func read(_ node: BlockNode) throws(ColdframeError) -> OpenedSidecar {
        let superblock = try readSuperblock(node)
        let file = SidecarFile(node, clusterBits: superblock.clusterBits)
        var opened = OpenedSidecar(file: file, superblock: superblock, scan: try LogScan(superblock, file))
        if let damage = opened.scan.damage { throw opened.damaged("at \(damage.offset): \(damage.why)") }
        try opened.fold()
        try opened.claimClusters()
        return opened
    }

    /// The superblock in force.
    static func readSuperblock(_ node: BlockNode) throws(ColdframeError) -> Superblock {
        let path = node.driver.displayFilename
        var found: [Superblock] = []
        for offset in Superblock.slotOffsets where node.byteCount >= offset + UInt64(Superblock.byteCount) {
            var bytes = [UInt8](repeating: 0, count: Superblock.byteCount)
            try bytes.withMutableBytes { buffer throws(ColdframeError) in
                try node.direct.read(into: buffer, at: offset)
            }
            if let superblock = try Superblock(bytes), Superblock.slot(ofSequence: superblock.sequence) == offset {
                found.append(superblock)
            }
        }
        guard let newest = found.max(by: { $0.sequence < $1.sequence }) else {
            throw ColdframeError(
                .corrupt,
                "'\(path)' is no sidecar: it has no superblock. The disk itself is whole in the raw file; make a new "
                    + "sidecar with blockdev-create, driver raw-sidecar, to go on without the snapshots")
        }
        return newest
    }

    func damaged(_ what: String) -> ColdframeError {
        ColdframeError(
            .corrupt,
            "Sidecar '\(file.path)' is damaged \(what). The disk itself is whole in the raw file; the snapshots are "
                + "not: have the image checked with repair to keep what the checksums prove")
    }

    /// Adds the records up.
    ///
    /// A record may have reached the disk before the data that it speaks of, if nothing after it says otherwise: then
    /// neither was committed, the raw file was not changed on its strength, and the log ends before it.
    private mutating func fold() throws(ColdframeError) {
        let durableCount = scan.end.durableCount
        let shorter = superblock
        var contents = contents
        scan = try LogScan(shorter, file) { (sequence, record) throws(ColdframeError) in
            if shorter.isInUse, sequence >= durableCount, case .preserved(let runs) = record {
                for run in runs where run.location != 0 {
                    if try !self.matches(run.location, run.checksums) { return false }
                }
            }
            do throws(ColdframeError) {
                try contents.apply(record)
            } catch {
                throw self.damaged("in record \(sequence): \(error.message)")
            }
            return true
        }
        for bucket in contents.index.bucketNumbers {
            // What a crash kept from being freed; nothing refers to those clusters any more.
            _ = contents.collect(bucket: bucket, clusterBits: file.clusterBits)
        }
        self.contents = contents
    }

    /// Whether the clusters from `location` on have these checksums.
    func matches(_ location: UInt32, _ checksums: [UInt32]) throws(ColdframeError) -> Bool {
        guard UInt64(location) + UInt64(checksums.count) <= file.clusterCount else { return false }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: file.clusterByteCount, alignment: 4096)
        defer { buffer.deallocate() }
        for (index, checksum) in checksums.enumerated() {
            try file.read(
                into: buffer, at: file.offset(ofCluster: location + UInt32(index)), "A preserved cluster")
            if Checksum.of(UnsafeRawBufferPointer(buffer)) != checksum { return false }
        }
        return true
    }

    /// Every cluster has one owner and lies in the file.
    mutating func claimClusters() throws(ColdframeError) {
        try claim(ClusterRun(first: 0, count: 1), "the superblock")
        for segment in scan.segments { try claim(segment, "the log") }
        for run in contents.stateRuns {
            try claim(ClusterRun(first: run.location, count: UInt32(run.checksums.count)), "a state")
        }
        for bitmap in contents.bitmaps {
            for run in bitmap.clusters { try claim(run, "bitmap '\(bitmap.name)'") }
        }
        for bucket in contents.index.bucketNumbers {
            for (cluster, entry) in contents.index.entries(ofBucket: bucket) where entry.location != 0 {
                try claim(ClusterRun(first: entry.location, count: 1), "guest cluster \(cluster)")
            }
        }
    }

    private mutating func claim(_ run: ClusterRun, _ what: String) throws(ColdframeError) {
        guard run.end <= file.clusterCount else {
            throw damaged(
                "by being cut short: cluster \(run.first) of \(what) lies outside its \(file.byteCount) bytes")
        }
        guard allocator.claim(run) else {
            throw damaged("at cluster \(run.first): \(what) and something else lie in it")
        }
    }
}

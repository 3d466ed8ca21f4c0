import ColdframeKit

/// Proves what a sidecar holds against its checksums, and keeps what they prove.
///
/// The raw file has no part in it: the disk is whole whatever is wrong here. Blocks; nobody has the image open. A crash
/// during a repair leaves the old sidecar or the mended one.
public struct SidecarCheck {
    /// What a check found.
    public struct Report: Sendable, Equatable {
        /// Findings that endanger snapshots, states or bitmaps, still there when the check ended.
        public var corruptionCount: UInt64 = 0
        public var fixedCorruptionCount: UInt64 = 0
        /// Clusters whose content was compared with its checksum.
        public var comparedClusterCount: UInt64 = 0
        /// Ids of the snapshots that may be wrong, those that were it before among them.
        public var suspectSnapshots: [String] = []

        public init() {}
    }

    private let node: BlockNode
    private let found: (String) -> Void
    private var opened: OpenedSidecar
    private var report = Report()

    /// Checks the sidecar in `node`, which is writable if it is to be mended.
    ///
    /// With `repairs`, what is damaged is taken out and the log written anew: a record that is lost makes all snapshots
    /// suspect, a kept cluster that is damaged those that read it; a damaged state or bitmap goes. A sidecar without a
    /// whole superblock holds nothing that could be proven, and throws.
    /// - Parameter found: gets each finding, in a sentence.
    public static func run(
        _ node: BlockNode, repairs: Bool, found: (String) -> Void
    ) throws(ColdframeError) -> Report {
        try withoutActuallyEscaping(found) { (found) throws(ColdframeError) in
            var check = try SidecarCheck(node, found)
            return try check.run(repairs)
        }
    }

    private init(_ node: BlockNode, _ found: @escaping (String) -> Void) throws(ColdframeError) {
        self.node = node
        self.found = found
        let superblock = try OpenedSidecar.readSuperblock(node)
        let file = SidecarFile(node, clusterBits: superblock.clusterBits)
        opened = OpenedSidecar(file: file, superblock: superblock, scan: try LogScan(superblock, file))
    }

    private mutating func run(_ repairs: Bool) throws(ColdframeError) -> Report {
        try readLog()
        try compareKeptClusters()
        try compareStates()
        try compareBitmaps()
        report.suspectSnapshots = opened.contents.snapshots.filter { opened.contents.isSuspect($0) }.map(\.info.id)
        guard repairs, report.corruptionCount > 0 else { return report }
        try opened.claimClusters()
        try SidecarStore(opened).writeLogAnew()
        report.fixedCorruptionCount = report.corruptionCount
        report.corruptionCount = 0
        return report
    }

    private mutating func note(_ finding: String) {
        report.corruptionCount += 1
        found(finding)
    }

    /// Adds up the records that are there. What was behind a damaged one is lost, and it may have been about anything.
    private mutating func readLog() throws(ColdframeError) {
        if let damage = opened.scan.damage { note("The log at \(damage.offset): \(damage.why)") }
        var contents = Contents()
        var misfits: [String] = []
        _ = try LogScan(opened.superblock, opened.file) { (sequence, record) throws(ColdframeError) in
            do throws(ColdframeError) {
                try contents.apply(record)
            } catch {
                misfits.append("Record \(sequence) is left out: \(error.message)")
            }
            return true
        }
        opened.contents = contents
        for misfit in misfits { note(misfit) }
        if report.corruptionCount > 0, let last = contents.snapshots.last {
            try opened.contents.apply(.suspect(first: 1, last: last.generation))
        }
        for bucket in opened.contents.index.bucketNumbers {
            _ = opened.contents.collect(bucket: bucket, clusterBits: opened.file.clusterBits)
        }
    }

    private mutating func compareKeptClusters() throws(ColdframeError) {
        var owners: Set<UInt32> = []
        for bucket in opened.contents.index.bucketNumbers {
            for (cluster, entry) in opened.contents.index.entries(ofBucket: bucket) where entry.location != 0 {
                report.comparedClusterCount += 1
                let isInFile = UInt64(entry.location) < opened.file.clusterCount
                let isItsOwn = owners.insert(entry.location).inserted
                if isInFile, isItsOwn, try opened.matches(entry.location, [entry.checksum]) { continue }
                note(
                    "Guest cluster \(cluster) as generation \(entry.generation) has it, in cluster \(entry.location), does "
                        + "not match its checksum")
                try distrustReaders(of: cluster, through: entry.generation)
                // What cannot be read at all is taken out; what can, stays as it is.
                if !isInFile || !isItsOwn {
                    opened.contents.index.remove(cluster: cluster, generation: entry.generation)
                }
            }
        }
    }

    /// The snapshots that read the cluster from the entry of this generation.
    private mutating func distrustReaders(of cluster: UInt64, through generation: UInt32) throws(ColdframeError) {
        for snapshot in opened.contents.snapshots where snapshot.generation <= generation {
            guard opened.contents.index.entry(of: cluster, from: snapshot.generation)?.generation == generation else {
                continue
            }
            try opened.contents.apply(.suspect(first: snapshot.generation, last: snapshot.generation))
        }
    }

    private mutating func compareStates() throws(ColdframeError) {
        for snapshot in opened.contents.snapshots where snapshot.info.vmStateByteCount > 0 {
            var isWhole = true
            for run in snapshot.state where isWhole {
                report.comparedClusterCount += UInt64(run.checksums.count)
                isWhole = try opened.matches(run.location, run.checksums)
            }
            guard !isWhole else { continue }
            note("The state of snapshot '\(snapshot.info.name)' does not match its checksums")
            opened.contents.removeState(ofGeneration: snapshot.generation)
        }
    }

    private mutating func compareBitmaps() throws(ColdframeError) {
        for bitmap in opened.contents.bitmaps {
            var isWhole = true
            for run in bitmap.runs where isWhole {
                report.comparedClusterCount += UInt64(run.checksums.count)
                isWhole = try opened.matches(run.location, run.checksums)
            }
            guard !isWhole else { continue }
            note("Bitmap '\(bitmap.name)' does not match its checksums")
            try opened.contents.apply(.bitmapRemoved(name: bitmap.name))
        }
    }
}

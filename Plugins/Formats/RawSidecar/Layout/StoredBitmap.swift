import ColdframeKit

/// A dirty bitmap as it is stored. docs/formats/raw-sidecar.md, "Records".
struct StoredBitmap: Equatable, Sendable {
    var name: String
    /// Bytes of disk that one bit stands for.
    var granularity: UInt32
    /// Size of the disk that it is about.
    var diskByteCount: UInt64
    var isRecording: Bool
    /// The image was not closed in order since: the bits cannot be trusted.
    var isInconsistent: Bool
    /// Clusters of the bits' bytes that are not all zero.
    var runs: [Run]

    struct Run: Equatable, Sendable {
        /// First cluster within the bits' bytes.
        var position: UInt32
        var location: UInt32
        var checksums: [UInt32]
    }

    func put(into writer: inout ByteWriter) {
        writer.put(granularity)
        writer.put(UInt32((isRecording ? 1 : 0) | (isInconsistent ? 2 : 0)))
        writer.put(diskByteCount)
        writer.putCounted(Array(name.utf8))
        writer.put(UInt32(runs.count))
        for run in runs {
            writer.put(run.position)
            writer.put(run.location)
            writer.put(UInt32(run.checksums.count))
            for checksum in run.checksums { writer.put(checksum) }
        }
    }

    init(_ reader: inout ByteReader) throws(ColdframeError) {
        granularity = try reader.take()
        let flags: UInt32 = try reader.take()
        isRecording = flags & 1 != 0
        isInconsistent = flags & 2 != 0
        diskByteCount = try reader.take()
        name = try reader.takeText(limit: Limits.nameByteCount, "a bitmap's name")
        guard Limits.bitmapGranularities.contains(granularity), granularity.nonzeroBitCount == 1,
            diskByteCount <= Limits.diskByteCount
        else { throw ColdframeError(.corrupt, "bitmap '\(name)' has an impossible granularity or size") }
        let count: UInt32 = try reader.take()
        runs = []
        for _ in 0..<count {
            let position: UInt32 = try reader.take()
            let location: UInt32 = try reader.take()
            let clusterCount: UInt32 = try reader.take()
            guard location > 0, ByteReader.isRun(location, clusterCount) else {
                throw ColdframeError(.corrupt, "a run of bitmap '\(name)' is impossible")
            }
            runs.append(Run(position: position, location: location, checksums: try reader.takeChecksums(clusterCount)))
        }
    }

    init(
        name: String, granularity: UInt32, diskByteCount: UInt64, isRecording: Bool, isInconsistent: Bool, runs: [Run]
    ) {
        self.name = name
        self.granularity = granularity
        self.diskByteCount = diskByteCount
        self.isRecording = isRecording
        self.isInconsistent = isInconsistent
        self.runs = runs
    }

    /// The sidecar's clusters that it takes.
    var clusters: [ClusterRun] { runs.map { ClusterRun(first: $0.location, count: UInt32($0.checksums.count)) } }
}

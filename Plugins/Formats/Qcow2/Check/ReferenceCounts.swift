/// How often each cluster of an image file is referred to. Memory is taken for those parts of the file only that
/// something refers to.
struct ReferenceCounts {
    private static let chunkBits: UInt64 = 14
    private var chunks: [UInt64: [UInt32]] = [:]
    /// First cluster behind the file's end; what refers to one behind is the caller's to report.
    let clusterCount: UInt64
    private(set) var end: UInt64 = 0

    init(clusterCount: UInt64) { self.clusterCount = clusterCount }

    subscript(cluster: UInt64) -> UInt64 {
        UInt64(chunks[cluster >> Self.chunkBits]?[Int(cluster & (1 << Self.chunkBits - 1))] ?? 0)
    }

    mutating func add(_ count: UInt32, to cluster: UInt64) {
        let index = Int(cluster & (1 << Self.chunkBits - 1))
        let (sum, overflow) = self[cluster].addingReportingOverflow(UInt64(count))
        chunks[cluster >> Self.chunkBits, default: [UInt32](repeating: 0, count: 1 << Int(Self.chunkBits))][index] =
            overflow ? .max : UInt32(clamping: sum)
        end = max(end, cluster + 1)
    }

    mutating func subtract(from cluster: UInt64) {
        let index = Int(cluster & (1 << Self.chunkBits - 1))
        if let old = chunks[cluster >> Self.chunkBits]?[index], old > 0 {
            chunks[cluster >> Self.chunkBits]?[index] = old - 1
        }
    }

    /// Calls `body` for every chunk that has been touched with its first cluster, in order.
    func forEachChunk(_ body: (_ first: UInt64, _ counts: [UInt32]) -> Void) {
        for key in chunks.keys.sorted() { body(key << Self.chunkBits, chunks[key] ?? []) }
    }
}

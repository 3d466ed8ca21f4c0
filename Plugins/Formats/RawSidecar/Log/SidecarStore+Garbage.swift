import ColdframeKit

// What no snapshot reads any more is freed a little at a time. Nothing is written for it: which clusters are garbage
// follows from the records, so a crash loses no step, and an open finishes what was left.

extension SidecarStore {
    /// A snapshot went: looks through the whole index again, from its beginning.
    func noteGarbage() {
        let buckets = contents.withLock { $0.index.bucketNumbers }
        garbage.withLock { $0 = buckets.reversed() }
        hasGarbage.store(!buckets.isEmpty, ordering: .relaxed)
    }

    /// Frees what can be freed in at most so many buckets of the index.
    func collectGarbage(bucketLimit: Int) {
        guard hasGarbage.load(ordering: .relaxed) else { return }
        for _ in 0..<bucketLimit {
            guard let bucket = garbage.withLock({ $0.popLast() }) else {
                hasGarbage.store(false, ordering: .relaxed)
                return
            }
            let bits = clusterBits
            let freed = contents.withLock { $0.collect(bucket: bucket, clusterBits: bits) }
            free(Self.runs(freed))
        }
    }

    /// Clusters as runs of neighbours.
    static func runs(_ clusters: [UInt32]) -> [ClusterRun] {
        var runs: [ClusterRun] = []
        for cluster in clusters.sorted() {
            if let last = runs.last, last.end == UInt64(cluster) {
                runs[runs.count - 1].count += 1
            } else {
                runs.append(ClusterRun(first: cluster, count: 1))
            }
        }
        return runs
    }
}

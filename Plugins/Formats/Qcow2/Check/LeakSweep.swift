import ColdframeKit

/// Frees clusters of an open image that count as used and that nothing points to, or that count more references than they
/// have.
///
/// A killed agent leaves them: clusters reserved ahead, those of a state that was being stored, those that an entry had
/// just stopped pointing to. They are found by checking the whole image, not by remembering what was taken: so nothing has
/// to be written before a cluster is used, and what others leaked goes as well. No request is in flight.
struct LeakSweep {
    private let image: Qcow2Driver
    private let geometry: Geometry
    private let store: ClusterStore

    init(_ image: Qcow2Driver) {
        self.image = image
        geometry = image.geometry
        store = image.store
    }

    /// What a comparison of the refcounts with the references finds, in clusters.
    struct Findings: Equatable {
        /// Refcount higher than the references.
        var leaks: UInt64 = 0
        /// Anything that is wrong otherwise.
        var corruptions: UInt64 = 0
    }

    /// Looks, and changes nothing.
    func findings() throws(ColdframeError) -> Findings {
        let result = try check().result
        return Findings(leaks: result.leakCount, corruptions: result.corruptionCount + result.checkErrorCount)
    }

    /// Everything is written through, so that the file says what the image is.
    private func check() throws(ColdframeError) -> ImageCheck {
        try Qcow2Check.pass(try Qcow2Image.read(image.file.node), Unobserved())
    }

    /// Frees the leaks and returns the bytes. What the image still needs is compared first, all of it: a sweep of a
    /// damaged image could free the only copy of something.
    func run() throws(ColdframeError) -> UInt64 {
        // An entry that pointed to a leaked cluster must be gone from stable storage before the cluster can be another's.
        try store.flush()
        let check = try check()
        let found = check.result.corruptionCount + check.result.checkErrorCount
        guard found == 0 else {
            throw ColdframeError(
                .corrupt,
                "\(found) errors were found in image '\(image.displayFilename)': check it with 'coldframe image check' "
                    + "while nobody uses it")
        }
        guard check.result.leakCount > 0 else { return 0 }
        // An entry that would have to get its COPIED flag at the same instant keeps its leak; we leave none of those.
        let kept = Set(check.wrongFlags.map(\.cluster))
        var freedCount: UInt64 = 0
        var first: UInt64 = 0
        while first < check.counts.clusterCount {
            let end = min(
                check.counts.clusterCount,
                (first / geometry.refcountBlockEntryCount + 1) * geometry.refcountBlockEntryCount)
            freedCount += try sweep(ClusterRun(first: first, count: end - first), check.counts, kept)
            first = end
        }
        return freedCount << UInt64(geometry.clusterBits)
    }

    /// Sets the refcounts of clusters that one block counts to the references. Returns how many became free; their space
    /// goes back to the host.
    private func sweep(
        _ run: ClusterRun, _ counts: ReferenceCounts, _ kept: Set<UInt64>
    ) throws(ColdframeError) -> UInt64 {
        try store.state.withLock { state throws(ColdframeError) in
            var isLeaked = false
            for cluster in run.first..<run.end where try state.refcounts.refcount(ofCluster: cluster) > counts[cluster]
            {
                isLeaked = true
                break
            }
            guard isLeaked else { return 0 }
            var freed: [ClusterRun] = []
            try state.refcounts.set(run) { cluster, old in
                guard old > counts[cluster], !kept.contains(cluster) else { return old }
                if counts[cluster] == 0 {
                    if let last = freed.last, last.end == cluster {
                        freed[freed.count - 1].count += 1
                    } else {
                        freed.append(ClusterRun(first: cluster, count: 1))
                    }
                }
                return counts[cluster]
            }
            state.searchStart = min(state.searchStart, run.first)
            for run in freed {
                image.file.discard(
                    at: geometry.hostOffset(ofCluster: run.first), byteCount: run.count << UInt64(geometry.clusterBits))
            }
            return freed.reduce(0) { $0 + $1.count }
        }
    }
}

extension Qcow2Driver: LeakReclaiming {
    public func reclaimLeaks() throws(ColdframeError) -> UInt64 { try LeakSweep(self).run() }
}

/// For checks that nobody watches.
final class Unobserved: ImageCheckObserver {
    func found(_ finding: String) {}
    func progressed(done: UInt64, total: UInt64) {}
}

import ColdframeKit

/// Frees clusters that count as used and that nothing points to, or that count more references than they have.
///
/// A killed agent leaves them: clusters reserved ahead, those of a state that was being stored, those that an entry had
/// just stopped pointing to. They are found by counting the whole image, not by remembering what was taken: so nothing has
/// to be written before a cluster is used, and what others leaked goes as well.
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
        /// Refcount lower than the references: in use, and free to be taken.
        var corruptions: UInt64 = 0
    }

    /// Looks, and changes nothing.
    func findings() throws(ColdframeError) -> Findings { try findings(try ReferenceCount(image)) }

    /// Frees the leaks and returns the bytes. What the image still needs is compared first, all of it: a sweep of a
    /// damaged image could free the only copy of something.
    func run() throws(ColdframeError) -> UInt64 {
        // An entry that pointed to a leaked cluster must be gone from stable storage before the cluster can be another's.
        try store.flush()
        let references = try ReferenceCount(image)
        let found = try findings(references)
        guard found.corruptions == 0 else {
            throw ColdframeError(
                .corrupt,
                "\(found.corruptions) clusters of image '\(image.displayFilename)' are in use and count as free: check it "
                    + "with qemu-img check while nobody uses it")
        }
        guard found.leaks > 0 else { return 0 }
        var freedCount: UInt64 = 0
        let blockCount = store.state.withLock { UInt64($0.refcounts.blockOffsets.count) }
        for index in 0..<blockCount { freedCount += try sweep(index, references) }
        return freedCount << UInt64(geometry.clusterBits)
    }

    private func findings(_ references: ReferenceCount) throws(ColdframeError) -> Findings {
        let entryCount = geometry.refcountBlockEntryCount
        return try store.state.withLock { state throws(ColdframeError) in
            var findings = Findings()
            // A table has room for many more blocks than there are; what no block counts, counts as free.
            for index in 0..<max(UInt64(state.refcounts.blockOffsets.count), references.clusterCount / entryCount + 1) {
                let base = index * entryCount
                guard let block = try state.refcounts.block(index) else {
                    findings.corruptions += references.usedCount(base, count: entryCount)
                    continue
                }
                for entry in 0..<Int(entryCount) {
                    let (refcount, count) = (block[entry], references[base + UInt64(entry)])
                    if refcount > count { findings.leaks += 1 }
                    if refcount < count { findings.corruptions += 1 }
                }
            }
            return findings
        }
    }

    /// Sets the refcounts of one block to the references and returns how many clusters became free. Their space goes back
    /// to the host.
    private func sweep(_ index: UInt64, _ references: ReferenceCount) throws(ColdframeError) -> UInt64 {
        let base = index * geometry.refcountBlockEntryCount
        return try store.state.withLock { state throws(ColdframeError) in
            var freedCount: UInt64 = 0
            try state.refcounts.rewrite(index) { block in
                var changed: Range<Int>?
                var hole = ClusterRun(first: 0, count: 0)
                for entry in 0..<Int(geometry.refcountBlockEntryCount) {
                    let cluster = base + UInt64(entry)
                    let count = references[cluster]
                    // An entry that would have to get its COPIED flag at the same instant keeps its leak.
                    guard block[entry] > count, count != 1 || !references.isUncopied(cluster) else { continue }
                    block[entry] = count
                    changed = (changed?.lowerBound ?? entry)..<entry + 1
                    guard count == 0 else { continue }
                    freedCount += 1
                    if hole.end != cluster || hole.count == 0 {
                        discard(hole)
                        hole = ClusterRun(first: cluster, count: 0)
                    }
                    hole.count += 1
                }
                discard(hole)
                return changed
            }
            state.searchStart = min(state.searchStart, base)
            return freedCount
        }
    }

    private func discard(_ run: ClusterRun) {
        guard run.count > 0 else { return }
        image.file.discard(
            at: geometry.hostOffset(ofCluster: run.first), byteCount: run.count << UInt64(geometry.clusterBits))
    }
}

extension Qcow2Driver: LeakReclaiming {
    public func reclaimLeaks() throws(ColdframeError) -> UInt64 { try LeakSweep(self).run() }
}

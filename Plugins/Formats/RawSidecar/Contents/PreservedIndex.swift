/// Which former contents of which guest clusters lie where: ordered by guest cluster, then generation.
///
/// A snapshot of generation g reads a cluster from the entry with the least generation that is at least g; without
/// one, from the raw file. So it does not matter how many snapshots lie between, and a deleted generation's entries go
/// on serving the older ones without being touched.
struct PreservedIndex: Sendable {
    /// One cluster's content; 16 bytes.
    struct Entry: Sendable {
        /// Guest cluster within its bucket.
        var slot: UInt32
        var generation: UInt32
        /// Cluster of the sidecar; 0 for all zeros.
        var location: UInt32
        var checksum: UInt32

        fileprivate var key: UInt64 { UInt64(slot) << 32 | UInt64(generation) }
    }

    /// Where a run of clusters comes from.
    enum Source: Equatable, Sendable {
        case raw
        case zero
        case stored(first: UInt32)
    }

    private static let bucketBits: UInt64 = 9
    private static let slotMask: UInt64 = 511
    /// Sorted by key. Small, so that an insert moves little.
    private var buckets: [UInt64: [Entry]] = [:]
    private(set) var count = 0

    /// Adds an entry; one of the same cluster and generation is replaced (a batch that failed may be repeated).
    mutating func insert(cluster: UInt64, generation: UInt32, location: UInt32, checksum: UInt32) {
        let entry = Entry(
            slot: UInt32(cluster & Self.slotMask), generation: generation, location: location, checksum: checksum)
        let bucket = cluster >> Self.bucketBits
        let index = Self.lowerBound(buckets[bucket, default: []], entry.key)
        if let entries = buckets[bucket], index < entries.count, entries[index].key == entry.key {
            buckets[bucket]?[index] = entry
        } else {
            buckets[bucket, default: []].insert(entry, at: index)
            count += 1
        }
    }

    mutating func remove(cluster: UInt64, generation: UInt32) {
        let bucket = cluster >> Self.bucketBits
        guard let entries = buckets[bucket],
            let index = entries.firstIndex(where: {
                $0.slot == UInt32(cluster & Self.slotMask) && $0.generation == generation
            })
        else { return }
        buckets[bucket]?.remove(at: index)
        count -= 1
    }

    /// The entry from which a snapshot of `generation` reads the cluster.
    func entry(of cluster: UInt64, from generation: UInt32) -> Entry? {
        guard let entries = buckets[cluster >> Self.bucketBits] else { return nil }
        let slot = UInt32(cluster & Self.slotMask)
        let index = Self.lowerBound(entries, UInt64(slot) << 32 | UInt64(generation))
        return index < entries.count && entries[index].slot == slot ? entries[index] : nil
    }

    /// The longest run from `clusters`' beginning, within it, that a snapshot of `generation` reads from one place.
    func run(_ clusters: Range<UInt64>, from generation: UInt32) -> (clusterCount: UInt64, source: Source) {
        let first = source(clusters.lowerBound, generation)
        var next = clusters.lowerBound + 1
        while next < clusters.upperBound, source(next, generation) == first.following(next - clusters.lowerBound) {
            next += 1
        }
        return (next - clusters.lowerBound, first)
    }

    private func source(_ cluster: UInt64, _ generation: UInt32) -> Source {
        guard let entry = entry(of: cluster, from: generation) else { return .raw }
        return entry.location == 0 ? .zero : .stored(first: entry.location)
    }

    private static func lowerBound(_ entries: [Entry], _ key: UInt64) -> Int {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].key < key { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: Walking

    /// Numbers of the buckets there are, in order.
    var bucketNumbers: [UInt64] { buckets.keys.sorted() }

    static func clusters(ofBucket bucket: UInt64) -> Range<UInt64> {
        bucket << bucketBits..<(bucket + 1) << bucketBits
    }

    /// The entries of a bucket with their guest clusters, in order.
    func entries(ofBucket bucket: UInt64) -> [(cluster: UInt64, entry: Entry)] {
        (buckets[bucket] ?? []).map { (bucket << Self.bucketBits | UInt64($0.slot), $0) }
    }

    /// Drops what no snapshot reads any more from one bucket and returns the sidecar's clusters that held it.
    /// - Parameter isRead: whether a snapshot whose generation is greater than `after` and at most `through` has the
    ///   cluster.
    mutating func collect(
        bucket: UInt64, isRead: (_ cluster: UInt64, _ after: UInt32, _ through: UInt32) -> Bool
    ) -> [UInt32] {
        guard let entries = buckets[bucket] else { return [] }
        var kept: [Entry] = []
        var freed: [UInt32] = []
        var previous: Entry?
        for entry in entries {
            let after = previous?.slot == entry.slot ? previous?.generation ?? 0 : 0
            previous = entry
            if isRead(bucket << Self.bucketBits | UInt64(entry.slot), after, entry.generation) {
                kept.append(entry)
            } else if entry.location != 0 {
                freed.append(entry.location)
            }
        }
        guard kept.count < entries.count else { return [] }
        count -= entries.count - kept.count
        buckets[bucket] = kept.isEmpty ? nil : kept
        return freed
    }
}

extension PreservedIndex.Source {
    /// The source `distance` clusters further on, if the run goes on.
    fileprivate func following(_ distance: UInt64) -> Self {
        if case .stored(let first) = self {
            .stored(first: first &+ UInt32(truncatingIfNeeded: distance))
        } else {
            self
        }
    }
}

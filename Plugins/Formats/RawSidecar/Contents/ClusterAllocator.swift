import ColdframeKit

/// Which clusters of the sidecar are taken: one bit each. Not stored: it follows from the contents.
struct ClusterAllocator: Sendable {
    private var words: [UInt64] = []
    /// Where the next search begins.
    private var hint = 0
    private(set) var usedCount: UInt64 = 0

    private func isTaken(_ cluster: Int) -> Bool {
        let word = cluster >> 6
        return word < words.count && words[word] >> UInt64(cluster & 63) & 1 != 0
    }

    private mutating func set(_ cluster: Int, _ isTaken: Bool) {
        let word = cluster >> 6
        while word >= words.count { words.append(contentsOf: repeatElement(0, count: max(1, words.count))) }
        let bit = UInt64(1) << UInt64(cluster & 63)
        if isTaken { words[word] |= bit } else { words[word] &= ~bit }
    }

    /// Takes clusters that something read from the image occupies. False if one is taken already.
    mutating func claim(_ run: ClusterRun) -> Bool {
        for cluster in Int(run.first)..<Int(run.end) {
            if isTaken(cluster) { return false }
            set(cluster, true)
        }
        usedCount += UInt64(run.count)
        return true
    }

    /// Takes free neighbouring clusters, at least one and at most `limit`.
    mutating func allocate(limit: Int) throws(ColdframeError) -> ClusterRun {
        let capacity = words.count * 64
        let first = freeCluster(from: hint, below: capacity) ?? freeCluster(from: 0, below: hint) ?? capacity
        guard UInt64(first) < Limits.sidecarClusterCount else { throw Self.isFull }
        let bound = min(first + limit, Int(Limits.sidecarClusterCount))
        var end = first + 1
        while end < bound, !isTaken(end) { end += 1 }
        return take(first..<end)
    }

    /// Takes exactly `count` neighbouring clusters, behind all others if there is no gap for them.
    mutating func allocate(exactly count: Int) throws(ColdframeError) -> ClusterRun {
        let capacity = words.count * 64
        var first = freeCluster(from: 0, below: capacity) ?? capacity
        while let taken = (first..<first + count).first(where: { isTaken($0) }) {
            first = freeCluster(from: taken, below: capacity) ?? capacity
        }
        guard UInt64(first + count) <= Limits.sidecarClusterCount else { throw Self.isFull }
        return take(first..<first + count)
    }

    mutating func free(_ run: ClusterRun) {
        for cluster in Int(run.first)..<Int(run.end) { set(cluster, false) }
        usedCount -= UInt64(run.count)
        hint = min(hint, Int(run.first))
    }

    private mutating func take(_ range: Range<Int>) -> ClusterRun {
        for cluster in range { set(cluster, true) }
        usedCount += UInt64(range.count)
        hint = range.upperBound
        return ClusterRun(first: UInt32(range.lowerBound), count: UInt32(range.count))
    }

    private func freeCluster(from start: Int, below end: Int) -> Int? {
        var cluster = start
        while cluster < end {
            let word = words[cluster >> 6] | ((UInt64(1) << UInt64(cluster & 63)) - 1)
            if word != .max { return (cluster & ~63) + (~word).trailingZeroBitCount }
            cluster = (cluster & ~63) + 64
        }
        return nil
    }

    private static let isFull = ColdframeError(
        .io, "The sidecar has no clusters left: delete a snapshot", errno: 28)
}

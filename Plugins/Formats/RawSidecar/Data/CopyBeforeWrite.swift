import ColdframeKit
import Glibc
import LinuxSystem
import Synchronization

/// Keeps what snapshots read from the raw file before a request changes it.
///
/// Order: the old content goes to free clusters of the sidecar, the record of it to the log, one flush makes both
/// durable, and only then does the caller write to the raw file. A crash anywhere leaves the raw file as it was, or the
/// old content found by its record. Threads that come meanwhile share the flush; memory is bounded by `runByteCount` for
/// each thread. A writer that goes through the disk in order finds more and more kept already: what lies ahead of it is
/// copied with what it needs, so that it does not wait for a flush in every cluster.
final class CopyBeforeWrite: Sendable {
    private let raw: BlockNode
    private let store: SidecarStore
    private let copying = Locked(Copying())

    private struct Copying {
        /// Guest clusters that some thread is copying.
        var clusters: Set<UInt64> = []
        /// First cluster behind the last that were copied, and how many were copied ahead of need.
        var next: UInt64?
        var aheadCount: UInt64 = 0
    }
    private let finished = ConditionVariable()
    /// The host's filesystem, or one of the nodes below, cannot share ranges of the two files.
    private let cannotShare = Atomic<Bool>(false)

    private static let runByteCount: UInt64 = 1 << 20
    /// Callers split longer ranges, so that no lock is held for long.
    static let stepByteCount: UInt64 = 16 << 20

    init(raw: BlockNode, store: SidecarStore) {
        self.raw = raw
        self.store = store
    }

    /// Returns when nothing that a snapshot reads lies in the range of the raw file any more.
    func keep(_ range: Range<UInt64>) throws(ColdframeError) {
        guard !range.isEmpty else { return }
        let bits = store.clusterBits
        let end = (range.upperBound - 1) >> bits + 1
        var next = range.lowerBound >> bits
        while next < end {
            switch claim(next..<end) {
            case .nothing: return
            case .wait(let cluster):
                finished.wait { self.copying.withLock { !$0.clusters.contains(cluster) } }
                next = cluster
            case .claimed(let clusters, let generation):
                defer { release(clusters) }
                try copy(clusters, generation)
                next = clusters.upperBound
            }
        }
        store.collectGarbage(bucketLimit: 2)
    }

    private enum Claim {
        case nothing
        case wait(UInt64)
        case claimed(Range<UInt64>, generation: UInt32)
    }

    /// Takes the next run that must be kept and that nobody else is copying, and what lies ahead of a writer that goes
    /// through the disk in order.
    private func claim(_ clusters: Range<UInt64>) -> Claim {
        let bits = store.clusterBits
        let limit = max(1, Self.runByteCount >> bits)
        let diskEnd = (raw.byteCount + store.clusterByteCount - 1) >> bits
        return copying.withLock { copying in
            store.contents.withLock { contents in
                guard let newest = contents.newest else { return .nothing }
                guard let first = clusters.first(where: { contents.needsKeeping($0, clusterBits: bits) }) else {
                    return .nothing
                }
                if copying.clusters.contains(first) { return .wait(first) }
                let isInOrder = copying.next == first
                copying.aheadCount = isInOrder ? min(limit, max(1, copying.aheadCount * 2)) : 0
                let wanted = max(clusters.upperBound, min(diskEnd, first + 1 + copying.aheadCount))
                var next = first
                repeat {
                    copying.clusters.insert(next)
                    next += 1
                } while next < wanted && next - first < limit && !copying.clusters.contains(next)
                    && contents.needsKeeping(next, clusterBits: bits)
                copying.next = next
                return .claimed(first..<next, generation: newest.generation)
            }
        }
    }

    private func release(_ clusters: Range<UInt64>) {
        copying.withLock { copying in
            for cluster in clusters { copying.clusters.remove(cluster) }
        }
        finished.broadcast()
    }

    private func copy(_ clusters: Range<UInt64>, _ generation: UInt32) throws(ColdframeError) {
        let byteCount = Int(clusters.upperBound - clusters.lowerBound) << Int(store.clusterBits)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
        defer { buffer.deallocate() }
        try raw.direct.readPadded(into: buffer, at: clusters.lowerBound << store.clusterBits)
        var taken: [ClusterRun] = []
        do throws(ColdframeError) {
            let runs = try write(UnsafeRawBufferPointer(buffer), clusters.lowerBound, generation, &taken)
            try store.commit(Record.preserving(runs))
        } catch {
            // While it is not certain what the log says, its clusters stay as they are.
            if !store.isUncertain.load(ordering: .acquiring) { store.free(taken) }
            throw error
        }
    }

    /// Writes what is not zero to free clusters; what the log has to say of it.
    private func write(
        _ buffer: UnsafeRawBufferPointer, _ first: UInt64, _ generation: UInt32, _ taken: inout [ClusterRun]
    ) throws(ColdframeError) -> [PreservedRun] {
        let size = store.file.clusterByteCount
        let count = buffer.count / size
        let isZero = (0..<count).map {
            Self.isZero(UnsafeRawBufferPointer(rebasing: buffer[$0 * size..<($0 + 1) * size]))
        }
        var runs: [PreservedRun] = []
        var index = 0
        while index < count {
            var end = index + 1
            while end < count, isZero[end] == isZero[index] { end += 1 }
            var run = PreservedRun(
                cluster: first + UInt64(index), generation: generation, location: 0, checksums: [])
            if isZero[index] {
                run.zeroCount = UInt32(end - index)
            } else {
                let place = try store.allocate(limit: end - index)
                taken.append(place)
                end = index + Int(place.count)
                let content = UnsafeRawBufferPointer(rebasing: buffer[index * size..<end * size])
                try put(content, first + UInt64(index), place.first)
                run.location = place.first
                run.checksums = (0..<end - index).map {
                    Checksum.of(UnsafeRawBufferPointer(rebasing: content[$0 * size..<($0 + 1) * size]))
                }
            }
            runs.append(run)
            index = end
        }
        return runs
    }

    /// Puts the content of guest clusters from `first` on into the sidecar: shared with the raw file, where nobody changes it
    /// meanwhile, if the host can do that, and copied otherwise.
    private func put(_ content: UnsafeRawBufferPointer, _ first: UInt64, _ location: UInt32) throws(ColdframeError) {
        let start = first << store.clusterBits
        let target = store.file.offset(ofCluster: location)
        let count = UInt64(content.count)
        // A cluster that the raw file does not have as a whole cannot be shared as a whole.
        if !cannotShare.load(ordering: .relaxed), start + count <= raw.byteCount {
            if try store.file.share(raw.driver, at: start, byteCount: count, to: target) { return }
            cannotShare.store(true, ordering: .relaxed)
        }
        try store.file.write(content, at: target)
    }

    private static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let start = bytes.baseAddress else { return true }
        return bytes[0] == 0 && memcmp(start, start + 1, bytes.count - 1) == 0
    }
}

extension DirectIO {
    /// Fills `buffer`; what lies behind the end of the disk reads as zeros.
    func readPadded(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let size = byteCount
        let present = offset >= size ? 0 : Int(min(UInt64(buffer.count), size - offset))
        if present > 0 { try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<present]), at: offset) }
        if present < buffer.count {
            UnsafeMutableRawBufferPointer(rebasing: buffer[present...]).initializeMemory(as: UInt8.self, repeating: 0)
        }
    }
}

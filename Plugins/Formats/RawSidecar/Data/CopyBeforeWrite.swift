import ColdframeKit
import Glibc
import LinuxSystem

/// Keeps what snapshots read from the raw file before a request changes it.
///
/// Order: the old content goes to free clusters of the sidecar, the record of it to the log, one flush makes both
/// durable, and only then does the caller write to the raw file. A crash anywhere leaves the raw file as it was, or the
/// old content found by its record. Threads that come meanwhile share the flush; memory is bounded by `runByteCount` for
/// each thread.
final class CopyBeforeWrite: Sendable {
    private let raw: BlockNode
    private let store: SidecarStore
    /// Guest clusters that some thread is copying.
    private let copying = Locked<Set<UInt64>>([])
    private let finished = ConditionVariable()

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
                finished.wait { self.copying.withLock { !$0.contains(cluster) } }
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

    /// Takes the next run that must be kept and that nobody else is copying.
    private func claim(_ clusters: Range<UInt64>) -> Claim {
        let limit = max(1, Self.runByteCount >> store.clusterBits)
        return copying.withLock { copying in
            store.contents.withLock { contents in
                guard let newest = contents.newest else { return .nothing }
                let bits = store.clusterBits
                guard let first = clusters.first(where: { contents.needsKeeping($0, clusterBits: bits) }) else {
                    return .nothing
                }
                if copying.contains(first) { return .wait(first) }
                var next = first
                repeat {
                    copying.insert(next)
                    next += 1
                } while next < clusters.upperBound && next - first < limit && !copying.contains(next)
                    && contents.needsKeeping(next, clusterBits: bits)
                return .claimed(first..<next, generation: newest.generation)
            }
        }
    }

    private func release(_ clusters: Range<UInt64>) {
        copying.withLock { copying in
            for cluster in clusters { copying.remove(cluster) }
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
                try store.file.write(content, at: store.file.offset(ofCluster: place.first))
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

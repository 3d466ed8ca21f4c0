import ColdframeKit
import LinuxSystem

/// The disk of a snapshot, read-only. Valid while the snapshot exists.
///
/// What was not kept is read from the raw file, where a writer may be about to change it. The writer publishes the kept
/// content first: so if no entry has appeared by the end of the read, what was read is what the snapshot holds;
/// otherwise it is read again from there.
final class SnapshotDisk: ReadOnlyDriver {
    let driverName = "raw-sidecar"
    let byteCount: UInt64
    let threadModel = ThreadModel.parallel
    let displayFilename: String
    private let generation: UInt32
    private let raw: BlockNode
    private let store: SidecarStore

    init(_ snapshot: Contents.Snapshot, raw: BlockNode, store: SidecarStore) {
        byteCount = snapshot.info.diskByteCount
        generation = snapshot.generation
        displayFilename = raw.driver.displayFilename
        self.raw = raw
        self.store = store
    }

    var clusterByteCount: UInt32? { UInt32(store.clusterByteCount) }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        var done = 0
        while done < buffer.count {
            let piece = piece(offset + UInt64(done)..<offset + UInt64(buffer.count))
            let count = Int(piece.range.upperBound - piece.range.lowerBound)
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + count])
            switch piece.source {
            case .zero: part.initializeMemory(as: UInt8.self, repeating: 0)
            case .stored(let first):
                try store.file.read(into: part, at: hostOffset(first, piece.range), "A preserved cluster")
            case .raw:
                guard try readRaw(into: part, piece.range) else { continue }
            }
            done += count
        }
    }

    /// False if the range is not what the snapshot holds any more.
    private func readRaw(into buffer: UnsafeMutableRawBufferPointer, _ range: Range<UInt64>) throws(ColdframeError)
        -> Bool
    {
        do throws(ColdframeError) {
            try raw.direct.readPadded(into: buffer, at: range.lowerBound)
        } catch {
            // It may just have been cut off; then it was kept before.
            guard isStillRaw(range) else { return false }
            throw error
        }
        return isStillRaw(range)
    }

    private func isStillRaw(_ range: Range<UInt64>) -> Bool {
        let now = piece(range)
        return now.source == .raw && now.range == range
    }

    /// The longest part from the range's beginning that comes from one place.
    private func piece(_ range: Range<UInt64>) -> (range: Range<UInt64>, source: PreservedIndex.Source) {
        let bits = store.clusterBits
        let clusters = range.lowerBound >> bits..<(range.upperBound - 1) >> bits + 1
        let run = store.contents.withLock { $0.index.run(clusters, from: generation) }
        let end = min(range.upperBound, (clusters.lowerBound + run.clusterCount) << bits)
        return (range.lowerBound..<end, run.source)
    }

    private func hostOffset(_ first: UInt32, _ range: Range<UInt64>) -> UInt64 {
        store.file.offset(ofCluster: first) + (range.lowerBound & (store.clusterByteCount - 1))
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        var list = ExtentList(limit: limit)
        var next = offset
        while next < offset + byteCount, !list.isFull {
            let piece = piece(next..<offset + byteCount)
            if piece.source == .raw {
                let found = try rawExtents(piece.range, limit: list.room)
                // Kept meanwhile: asked again.
                guard isStillRaw(piece.range) else { continue }
                for extent in found { list.append(extent) }
                next = found.last?.end ?? next
            } else {
                list.append(storedExtent(piece.range, piece.source))
                next = piece.range.upperBound
            }
        }
        return list.extents
    }

    private func storedExtent(_ range: Range<UInt64>, _ source: PreservedIndex.Source) -> Extent {
        var kind = Extent.Kind.zero(allocated: true)
        if case .stored(let first) = source {
            let file = store.file.node.driver as? any ExtentSource
            kind = file.map { .data(source: $0, hostOffset: hostOffset(first, range)) } ?? .opaque
        }
        return Extent(offset: range.lowerBound, byteCount: range.upperBound - range.lowerBound, kind: kind)
    }

    /// Holes stay zero for this snapshot whatever the guest writes. Data is to be read through `read`, which notices a
    /// change.
    private func rawExtents(_ range: Range<UInt64>, limit: Int) throws(ColdframeError) -> [Extent] {
        let size = raw.byteCount
        guard range.lowerBound < size else {
            return [
                Extent(
                    offset: range.lowerBound, byteCount: range.upperBound - range.lowerBound,
                    kind: .zero(allocated: false))
            ]
        }
        let end = min(size, range.upperBound)
        return try raw.direct.extents(at: range.lowerBound, byteCount: end - range.lowerBound, limit: limit).map {
            if case .zero = $0.kind { return $0 }
            return Extent(offset: $0.offset, byteCount: $0.byteCount, kind: .opaque)
        }
    }
}

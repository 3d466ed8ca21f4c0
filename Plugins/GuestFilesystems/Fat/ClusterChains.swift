import ColdframeKit
import LinuxSystem

/// Files and directories as chains of clusters. Any thread.
///
/// A chain is known by its first cluster only; where the last readers were is kept, so that a file that is read from its
/// beginning to its end is walked once.
final class ClusterChains: Sendable {
    /// A cluster of a chain. Loops are found by Brent's method: every cluster is compared with the one at the last power
    /// of two, so that a loop is met after at most three times its length and the way to it, without memory.
    private struct Position {
        var index: UInt64 = 0
        var cluster: UInt32
        var mark: UInt32
    }
    private static let keptCount = 64

    private let volume: any GuestVolume
    private let geometry: FatGeometry
    private let table: FatTable
    private let kept = Locked<(positions: [(first: UInt32, position: Position)], next: Int)>(([], 0))

    init(_ volume: any GuestVolume, _ geometry: FatGeometry) {
        self.volume = volume
        self.geometry = geometry
        table = FatTable(volume, geometry)
    }

    /// Fills the buffer from the chain; `.corrupt` if it is shorter.
    func read(
        _ first: UInt32, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(ColdframeError) {
        let size = geometry.clusterByteCount
        var done = 0
        while done < buffer.count {
            let start = offset + UInt64(done)
            guard var position = try position(start / size, of: first) else {
                throw ColdframeError(
                    .corrupt,
                    "The chain of clusters that begins at \(first) ends before byte \(start), where its file has more")
            }
            let place = geometry.offset(ofCluster: position.cluster) + start % size
            // Clusters in a row are read at once.
            var byteCount = size - start % size
            let wanted = UInt64(buffer.count - done)
            while byteCount < wanted, let next = try advanced(position, first), next.cluster == position.cluster + 1 {
                position = next
                byteCount += size
            }
            keep(position, of: first)
            let count = Int(min(byteCount, wanted))
            try volume.readPart(
                into: UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + count]), at: place,
                "A cluster of a file")
            done += count
        }
    }

    /// Where cluster `index` of the chain begins; nil behind its end.
    func offset(ofCluster index: UInt64, of first: UInt32) throws(ColdframeError) -> UInt64? {
        guard let position = try position(index, of: first) else { return nil }
        keep(position, of: first)
        return geometry.offset(ofCluster: position.cluster)
    }

    private func position(_ index: UInt64, of first: UInt32) throws(ColdframeError) -> Position? {
        try geometry.check(cluster: first, "A file")
        var position = Position(cluster: first, mark: first)
        let known = kept.withLock { $0.positions.first { $0.first == first }?.position }
        if let known, known.index <= index { position = known }
        while position.index < index {
            guard let next = try advanced(position, first) else { return nil }
            position = next
        }
        return position
    }

    private func advanced(_ position: Position, _ first: UInt32) throws(ColdframeError) -> Position? {
        guard let cluster = try table.next(after: position.cluster) else { return nil }
        guard cluster != position.mark else {
            throw ColdframeError(.corrupt, "The chain of clusters that begins at \(first) is a loop")
        }
        let index = position.index + 1
        return Position(index: index, cluster: cluster, mark: index & (index - 1) == 0 ? cluster : position.mark)
    }

    private func keep(_ position: Position, of first: UInt32) {
        kept.withLock { kept in
            if let known = kept.positions.firstIndex(where: { $0.first == first }) {
                kept.positions[known].position = position
            } else if kept.positions.count < Self.keptCount {
                kept.positions.append((first, position))
            } else {
                kept.positions[kept.next] = (first, position)
                kept.next = (kept.next + 1) % Self.keptCount
            }
        }
    }
}

import ColdframeKit

/// Replaces what stands in an image's first cluster, so that a crash leaves the old header or the new one, also on a disk
/// that writes each sector by itself.
///
/// What switches is the first sector, with all fields and nearly always all extensions. A backing file's name that does not fit into
/// it goes where the old header has nothing, and is flushed before. Extensions that reach over the sector stay as they are there;
/// the names of features, which are only there to be shown, give way. Foreign extensions of such a length that would have to
/// move are the exception: then the cluster is written in one piece.
struct HeaderSwitch {
    private let file: ImageFile
    private let old: HeaderCluster
    private let clusterByteCount: Int
    /// The first cluster as it is.
    private let present: [UInt8]

    private static let sectorByteCount = 512

    init(_ image: Qcow2Image) throws(ColdframeError) {
        file = image.file
        old = HeaderCluster(
            header: image.header, extensions: image.extensions, backingFilename: image.backingFilename)
        clusterByteCount = Int(image.header.geometry.clusterByteCount)
        present = try file.readMetadata(
            byteCount: Int(min(file.byteCount, UInt64(clusterByteCount))), at: HostOffset(0), "qcow2 header")
    }

    /// Durable when it returns; throws with the old header in force.
    func run(_ new: HeaderCluster) throws(ColdframeError) {
        var new = new
        if !tailStays(new) { new.extensions.setFeatureNames(false) }
        let sector = Self.sectorByteCount
        let bytes: [UInt8]
        if new.headByteCount + new.nameBytes.count <= sector || !tailStays(new) {
            bytes = try new.encode(later: later(new))
        } else {
            let place = try namePlace(new)
            bytes = try new.encodeHead(later: later(new), nameOffset: place)
            if place != Int(old.header.backingNameOffset) || new.nameBytes != old.nameBytes {
                try file.ensureByteCount(UInt64(place + new.nameBytes.count))
                try file.write(new.nameBytes, at: HostOffset(UInt64(place)))
                try file.flush()
            }
        }
        do {
            try file.write(bytes, at: HostOffset(0))
            try file.flush()
        } catch {
            try? file.write(Array(present.prefix(bytes.count)), at: HostOffset(0))
            throw error
        }
    }

    /// Where a name that is longer than the rest of the first sector goes: where it is, or behind all that the old header has.
    private func namePlace(_ new: HeaderCluster) throws(ColdframeError) -> Int {
        let first = max(Self.sectorByteCount, new.headByteCount)
        let oldStart = Int(old.header.backingNameOffset)
        let oldEnd = oldStart + Int(old.header.backingNameByteCount)
        if new.nameBytes == old.nameBytes, oldStart >= first { return oldStart }
        let free = [first, max(first, old.headByteCount, oldEnd)].first { start in
            let range = start..<start + new.nameBytes.count
            return start >= old.headByteCount && !range.overlaps(oldStart..<oldEnd)
                && range.upperBound <= clusterByteCount
        }
        guard let free else {
            throw ColdframeError(
                .invalidArgument,
                "The first cluster of \(clusterByteCount) bytes has no room for another backing file name beside the old "
                    + "one: take it out first")
        }
        return free
    }

    /// Nothing changes behind the first sector but the name.
    private func tailStays(_ new: HeaderCluster) -> Bool {
        var copy = new
        guard new.headByteCount > Self.sectorByteCount else { return true }
        guard new.headByteCount <= present.count,
            let head = try? copy.encodeHead(later: later(new), nameOffset: new.headByteCount)
        else { return false }
        return head[Self.sectorByteCount...] == present[Self.sectorByteCount..<head.count]
    }

    /// Fields of the old header that we do not know; a header of version 2 has none to give or to take.
    private func later(_ new: HeaderCluster) -> ArraySlice<UInt8> {
        guard old.header.version >= 3, new.header.version >= 3 else { return [] }
        return present[
            min(Header.version3ByteCount, present.count)..<min(Int(old.header.headerByteCount), present.count)]
    }
}

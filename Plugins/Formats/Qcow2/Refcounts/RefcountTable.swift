import ColdframeKit

/// The refcounts of an image as they are in the file: blocks are read when needed, kept up to a bound, and written
/// through at every change. Not thread-safe: `ClusterStore` holds it under its lock.
final class RefcountTable {
    let file: ImageFile
    let geometry: Geometry
    let entriesPerBlock: UInt64
    /// Looked at before a block is changed in place; nil for whoever mends an image that nobody has open.
    var guardian: MetadataGuard?
    /// Host offsets of the blocks, 0 where there is none.
    private(set) var blockOffsets: [UInt64]
    private var cached: [UInt64: RefcountBlock] = [:]
    /// Those of them that were looked at since the last call of `dropUnused`.
    private var used: Set<UInt64> = []
    private let cachedBlockLimit: Int
    /// The block that was looked at last.
    private var recent: (index: UInt64, block: RefcountBlock)?

    init(file: ImageFile, geometry: Geometry, header: Header, cacheByteLimit: Int) throws(ColdframeError) {
        self.file = file
        self.geometry = geometry
        entriesPerBlock = geometry.refcountBlockEntryCount
        cachedBlockLimit = max(4, cacheByteLimit / Int(geometry.clusterByteCount))
        let entryCount = Int(UInt64(header.refcountTableClusterCount) << UInt64(geometry.clusterBits - 3))
        blockOffsets = try file.readWords(
            count: entryCount, at: header.refcountTableOffset, "Could not initialize refcount handling: refcount table")
    }

    /// The block that counts the clusters from `index * entriesPerBlock` on; nil if there is none, all 0.
    func block(_ index: UInt64) throws(ColdframeError) -> RefcountBlock? {
        if let recent, recent.index == index { return recent.block }
        if let block = cached[index] {
            note(block, index)
            return block
        }
        guard index < UInt64(blockOffsets.count) else { return nil }
        let offset = blockOffsets[Int(index)]
        guard offset != 0 else { return nil }
        guard geometry.isClusterAligned(offset) else {
            throw ColdframeError(.corrupt, "Refblock offset \(offset) unaligned (reftable index: \(index))")
        }
        let block = RefcountBlock(geometry: geometry)
        file.announce(.loadRefcountBlock)
        try file.readMetadata(into: block.bytes, at: HostOffset(offset), "Refcount block")
        keep(block, index)
        return block
    }

    private func note(_ block: RefcountBlock, _ index: UInt64) {
        recent = (index, block)
        used.insert(index)
    }

    private func keep(_ block: RefcountBlock, _ index: UInt64) {
        // Nothing is dirty, so whichever goes is read again when it is needed.
        if cached.count >= cachedBlockLimit, let victim = cached.keys.first { forget(victim) }
        cached[index] = block
        note(block, index)
    }

    private func forget(_ index: UInt64) {
        cached[index] = nil
        used.remove(index)
        if recent?.index == index { recent = nil }
    }

    /// Drops what nobody has looked at since the last call.
    func dropUnused() {
        for index in cached.keys where !used.contains(index) { forget(index) }
        used = []
        recent = nil
    }

    /// Memory that the cached blocks take.
    var cachedByteCount: Int { cached.count * Int(geometry.clusterByteCount) }

    func refcount(ofCluster cluster: UInt64) throws(ColdframeError) -> UInt64 {
        guard let block = try block(cluster / entriesPerBlock) else { return 0 }
        return block[Int(cluster % entriesPerBlock)]
    }

    /// Adds 1 to the refcounts of `run`, all of which have a block, or subtracts 1, and writes them. A failed write leaves what was
    /// written before it. `onFree` gets the clusters whose refcount fell to 0.
    func adjust(
        _ run: ClusterRun, raise: Bool, onFree: (ClusterRun) -> Void = { _ in }
    ) throws(ColdframeError) {
        try eachPart(run) { (block, entries, _) throws(ColdframeError) in
            try block.adjust(entries, raise: raise, maximum: geometry.refcountMaximum)
        } written: { (block, entries, base) in
            guard !raise else { return }
            for entry in entries where block[entry] == 0 { onFree(ClusterRun(first: base + UInt64(entry), count: 1)) }
        }
    }

    /// Gives the clusters of `run` these refcounts, within the format's maximum, and writes them.
    func set(_ run: ClusterRun, _ refcount: (_ cluster: UInt64, _ old: UInt64) -> UInt64) throws(ColdframeError) {
        try eachPart(run) { (block, entries, base) in
            for entry in entries { block[entry] = refcount(base + UInt64(entry), block[entry]) }
        } written: { _, _, _ in
        }
    }

    /// Changes the part of `run` that each block counts, and writes it.
    private func eachPart(
        _ run: ClusterRun, _ change: (RefcountBlock, Range<Int>, _ base: UInt64) throws(ColdframeError) -> Void,
        written: (RefcountBlock, Range<Int>, _ base: UInt64) -> Void
    ) throws(ColdframeError) {
        var cluster = run.first
        while cluster < run.end {
            let index = cluster / entriesPerBlock
            let end = min(run.end, (index + 1) * entriesPerBlock)
            guard let block = try block(index) else {
                throw ColdframeError(.corrupt, "Cluster \(cluster) has no refcount block")
            }
            let entries = Int(cluster % entriesPerBlock)..<Int(end - 1 - index * entriesPerBlock) + 1
            try guardian?.checkInPlace(HostOffset(blockOffsets[Int(index)]), as: .refcountBlock)
            try change(block, entries, index * entriesPerBlock)
            let bytes = block.byteRange(entries)
            file.announce(.updateRefcountBlock)
            do {
                try file.write(
                    UnsafeRawBufferPointer(rebasing: block.bytes[bytes]),
                    at: HostOffset(blockOffsets[Int(index)]) + UInt64(bytes.lowerBound))
            } catch {
                forget(index)
                throw error
            }
            written(block, entries, index * entriesPerBlock)
            cluster = end
        }
    }

    /// The first free clusters from `start` on that have a refcount block, at most `limit` in a row; nil if there are
    /// none before the end of the table.
    func findFree(from start: UInt64, limit: UInt64) throws(ColdframeError) -> ClusterRun? {
        let entriesPerBlock = entriesPerBlock
        let entryCount = Int(entriesPerBlock)
        var index = start / entriesPerBlock
        var entry = Int(start % entriesPerBlock)
        while index < UInt64(blockOffsets.count) {
            if let block = try block(index) {
                while entry < entryCount {
                    if block[entry] == 0 {
                        var end = entry + 1
                        while end < entryCount, UInt64(end - entry) < limit, block[end] == 0 { end += 1 }
                        return ClusterRun(first: index * entriesPerBlock + UInt64(entry), count: UInt64(end - entry))
                    }
                    entry += 1
                }
            }
            index += 1
            entry = 0
        }
        return nil
    }

    /// Clusters before `end` whose refcount is not 0; counts no further than to `limit`.
    func usedCount(before end: UInt64, upTo limit: UInt64) throws(ColdframeError) -> UInt64 {
        var count: UInt64 = 0
        var start: UInt64 = 0
        while start < end, count < limit {
            let next = min(end, start + entriesPerBlock)
            if let block = try block(start / entriesPerBlock) {
                for entry in 0..<Int(next - start) where block[entry] != 0 { count += 1 }
            }
            start = next
        }
        return min(count, limit)
    }

    /// Those clusters of `run` whose refcount is `value`, in runs. A block that cannot be read has none.
    func runs(of value: UInt64, in run: ClusterRun) -> [ClusterRun] {
        var found: [ClusterRun] = []
        var cluster = run.first
        while cluster < run.end {
            let index = cluster / entriesPerBlock
            let end = min(run.end, (index + 1) * entriesPerBlock)
            guard let block = try? block(index) else {
                cluster = end
                continue
            }
            for entry in Int(cluster % entriesPerBlock)..<Int(end - index * entriesPerBlock) where block[entry] == value
            {
                let here = index * entriesPerBlock + UInt64(entry)
                if let last = found.last, last.end == here {
                    found[found.count - 1].count += 1
                } else {
                    found.append(ClusterRun(first: here, count: 1))
                }
            }
            cluster = end
        }
        return found
    }

    /// The first indices that have no block.
    func missingBlocks(count: Int) -> [UInt64] {
        var missing: [UInt64] = []
        var index = 0
        while missing.count < count {
            if index >= blockOffsets.count || blockOffsets[index] == 0 { missing.append(UInt64(index)) }
            index += 1
        }
        return missing
    }

    /// Takes over what a transaction has made durable.
    func adopt(blockOffsets: [UInt64], blocks: [UInt64: RefcountBlock]) {
        self.blockOffsets = blockOffsets
        for (index, block) in blocks {
            forget(index)
            keep(block, index)
        }
    }
}

extension RefcountBlock {
    /// Adds or subtracts 1; changes nothing if a refcount would leave its bounds.
    func adjust(_ entries: Range<Int>, raise: Bool, maximum: UInt64) throws(ColdframeError) {
        for index in entries {
            if raise, self[index] == maximum {
                throw ColdframeError(
                    .unsupported, "A refcount would exceed \(maximum); the image's refcounts are too narrow for it",
                    errno: 22)
            }
            if !raise, self[index] == 0 {
                throw ColdframeError(
                    .corrupt, "A refcount is lower than its references; check the image with qemu-img check")
            }
        }
        for index in entries { self[index] = raise ? self[index] + 1 : self[index] - 1 }
    }
}

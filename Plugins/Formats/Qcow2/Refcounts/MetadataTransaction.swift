import ColdframeKit

/// A change of refcounts, tables and header that a crash leaves undone or done, never in between.
///
/// Nothing that the header reaches is written in place. Changed refcount blocks, the refcount table, and whatever tables the
/// caller writes with `allocate` go to clusters that are free in the old *and* the new state; then one flush, one write of
/// the header (within one sector) that switches all of it, one flush. The new refcounts count the new structures and not the
/// old ones, so neither a crash before the switch nor one after it leaks anything. If the switch fails the old header is put
/// back (`ClusterStore.commit`): all it points to is still there.
///
/// Used under the lock of `ClusterStore`, whose refcounts must not change meanwhile.
final class MetadataTransaction {
    private let table: RefcountTable
    private let file: ImageFile
    private let geometry: Geometry
    /// Blocks with changes, by index.
    private var edits: [UInt64: RefcountBlock] = [:]
    private var placed: [UInt64: HostOffset] = [:]
    /// The one that was asked for last.
    private var recent: (index: UInt64, block: RefcountBlock)?
    private var searchStart: UInt64
    private var usedEnd: UInt64 = 0
    /// The header in the file may be the new one.
    private(set) var hasBegunSwitch = false
    /// Clusters whose refcount fell to 0, in the order of release, and why.
    private(set) var freed: [ClusterStore.Freeing] = []
    /// Clusters that `allocate` gave, and what for.
    private(set) var taken: [(run: ClusterRun, kind: MetadataKinds)] = []

    /// `searchStart`: no cluster before it is free.
    init(table: RefcountTable, searchStart: UInt64) {
        self.table = table
        file = table.file
        geometry = table.geometry
        self.searchStart = searchStart
    }

    private func edit(_ index: UInt64) throws(ColdframeError) -> RefcountBlock {
        if let recent, recent.index == index { return recent.block }
        let block: RefcountBlock
        if let known = edits[index] {
            block = known
        } else {
            if let base = try table.block(index) {
                block = RefcountBlock(copying: base)
            } else {
                block = RefcountBlock(geometry: geometry)
            }
            edits[index] = block
        }
        recent = (index, block)
        return block
    }

    func refcount(ofCluster cluster: UInt64) throws(ColdframeError) -> UInt64 {
        let index = cluster / table.entriesPerBlock
        if let recent, recent.index == index { return recent.block[Int(cluster % table.entriesPerBlock)] }
        if let block = edits[index] {
            recent = (index, block)
            return block[Int(cluster % table.entriesPerBlock)]
        }
        return try table.refcount(ofCluster: cluster)
    }

    /// Adds a reference to each cluster, or takes one away, for the given cause.
    func adjust(_ run: ClusterRun, raise: Bool, cause: FreeingCause = .other) throws(ColdframeError) {
        guard run.end <= Limits.hostByteCount >> UInt64(geometry.clusterBits) else {
            throw ColdframeError(.corrupt, "Host cluster \(run.first) lies outside what the format can address")
        }
        var cluster = run.first
        while cluster < run.end {
            let index = cluster / table.entriesPerBlock
            if index >= UInt64(table.blockOffsets.count), !raise {
                throw ColdframeError(.corrupt, "Cluster \(cluster) has no refcount block")
            }
            let block = try edit(index)
            let base = index * table.entriesPerBlock
            let end = min(run.end, base + table.entriesPerBlock)
            let entries = Int(cluster - base)..<Int(end - base)
            try block.adjust(entries, raise: raise, maximum: geometry.refcountMaximum)
            if !raise { noteFreed(block, entries, base, cause) }
            cluster = end
        }
    }

    private func noteFreed(
        _ block: RefcountBlock, _ entries: Range<Int>, _ base: UInt64, _ cause: FreeingCause
    ) {
        for entry in entries where block[entry] == 0 {
            let cluster = base + UInt64(entry)
            if let last = freed.last, last.run.end == cluster, last.cause == cause {
                freed[freed.count - 1].run.count += 1
            } else {
                freed.append(.init(run: ClusterRun(first: cluster, count: 1), cause: cause))
            }
        }
    }

    /// Takes `count` free clusters in a row, with refcount 1.
    func allocate(_ count: UInt64, for kind: MetadataKinds) throws(ColdframeError) -> HostOffset {
        var first = searchStart
        var length: UInt64 = 0
        let limit = Limits.hostByteCount >> UInt64(geometry.clusterBits)
        while length < count {
            guard first + length < limit else {
                throw ColdframeError(.unsupported, "The image file has no more room in its format", errno: 27)
            }
            if try isFree(first + length) {
                length += 1
            } else {
                if count == 1 { searchStart = first + length + 1 }
                first += length + 1
                length = 0
            }
        }
        let run = ClusterRun(first: first, count: count)
        try adjust(run, raise: true)
        usedEnd = max(usedEnd, run.end)
        taken.append((run, kind))
        return geometry.hostOffset(ofCluster: first)
    }

    /// Free before and after: what is freed here is still needed if the switch does not come.
    private func isFree(_ cluster: UInt64) throws(ColdframeError) -> Bool {
        guard try table.refcount(ofCluster: cluster) == 0 else { return false }
        return try refcount(ofCluster: cluster) == 0
    }

    /// Makes the refcount block with this index exist.
    func addBlock(_ index: UInt64) throws(ColdframeError) { _ = try edit(index) }

    /// Writes words to clusters that `allocate` gave, the rest of the last cluster as zeros.
    func writeTable(_ words: [UInt64], at offset: HostOffset) throws(ColdframeError) {
        let clusterWords = Int(geometry.clusterByteCount / 8)
        var padded = words
        let rest = words.count % clusterWords
        if rest != 0 || words.isEmpty { padded.append(contentsOf: repeatElement(0, count: clusterWords - rest)) }
        try reach()
        try file.writeWords(padded, at: offset)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: HostOffset) throws(ColdframeError) {
        try reach()
        try file.write(bytes, at: offset)
    }

    private func reach() throws(ColdframeError) {
        try file.ensureByteCount(usedEnd << UInt64(geometry.clusterBits))
    }

    /// Places the refcounts, switches, and returns the header that is in force. Throws with the old state in force, but for the
    /// header in the file where the switch has begun: the caller puts the old one back.
    func commit(_ header: Header, _ change: (inout Header) -> Void) throws(ColdframeError) -> Header {
        let tableRun = try place(header)
        try reach()
        var offsets = table.blockOffsets
        let entryCount = Int(tableRun.count * geometry.clusterByteCount / 8)
        offsets.append(contentsOf: repeatElement(0, count: entryCount - offsets.count))
        for (index, offset) in placed {
            offsets[Int(index)] = offset.rawValue
            try edits[index]?.write(to: file, at: offset)
        }
        try file.writeWords(offsets, at: geometry.hostOffset(ofCluster: tableRun.first))
        try file.flush()

        var new = header
        change(&new)
        new.refcountTableOffset = geometry.hostOffset(ofCluster: tableRun.first)
        new.refcountTableClusterCount = UInt32(tableRun.count)
        hasBegunSwitch = true
        try file.write(new.encodedFixedFields, at: HostOffset(0))
        try file.flush()
        table.adopt(blockOffsets: offsets, blocks: edits)
        return new
    }

    /// Gives every changed block and the table a new place. Each of them is counted itself, which may change further
    /// blocks: repeated until nothing is left over.
    private func place(_ header: Header) throws(ColdframeError) -> ClusterRun {
        let entriesPerCluster = geometry.clusterByteCount / 8
        let old = ClusterRun(
            first: geometry.cluster(of: header.refcountTableOffset), count: UInt64(header.refcountTableClusterCount))
        var run: ClusterRun?
        while true {
            for index in edits.keys.filter({ placed[$0] == nil }).sorted() {
                placed[index] = try allocate(1, for: .refcountBlock)
                if index < UInt64(table.blockOffsets.count), table.blockOffsets[Int(index)] != 0 {
                    let previous = geometry.cluster(of: HostOffset(table.blockOffsets[Int(index)]))
                    try adjust(ClusterRun(first: previous, count: 1), raise: false)
                }
            }
            let needed = max(UInt64(table.blockOffsets.count), (edits.keys.max() ?? 0) + 1)
            if run.map({ $0.count * entriesPerCluster < needed }) ?? true {
                try adjust(run ?? old, raise: false)
                // A table that must grow gets half as much again, so that growing stays rare.
                let wanted = needed > UInt64(table.blockOffsets.count) ? needed + needed / 2 : needed
                let clusterCount = geometry.clusterCount(forByteCount: wanted * 8)
                guard clusterCount << UInt64(geometry.clusterBits) <= Limits.refcountTableByteCount else {
                    throw ColdframeError(.unsupported, "The refcount table would exceed its limit of 8 MiB", errno: 27)
                }
                let first = geometry.cluster(of: try allocate(clusterCount, for: .refcountTable))
                run = ClusterRun(first: first, count: clusterCount)
            }
            if let run, edits.keys.allSatisfy({ placed[$0] != nil }),
                run.count * entriesPerCluster > edits.keys.max() ?? 0
            {
                return run
            }
        }
    }

    /// First cluster behind all that this transaction took.
    var endOfUse: UInt64 { usedEnd }
}

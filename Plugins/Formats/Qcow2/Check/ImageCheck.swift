import ColdframeKit

/// One pass over an image: everything that the header reaches is walked, references are counted, and compared with
/// the refcounts and the COPIED flags.
///
/// Every L2 table is read once, however many snapshots share it, so that time and memory are bounded by the file and
/// not by what its tables claim.
struct ImageCheck {
    let image: Qcow2Image
    let file: ImageFile
    let geometry: Geometry
    let walk: TreeWalk
    private let observer: any ImageCheckObserver
    private(set) var result = ImageCheckResult()
    private(set) var counts: ReferenceCounts
    /// Corruption that is more than a wrong refcount or flag: no repair of ours mends it.
    private(set) var unmendableCount: UInt64 = 0
    /// Words in active tables whose COPIED flag does not agree with the references: their place in the file, the word as
    /// it should be, the cluster that they point to.
    private(set) var wrongFlags: [(place: HostOffset, word: UInt64, cluster: UInt64)] = []
    private(set) var activeL1: [UInt64] = []
    /// L1 entries per L2 table: active and of snapshots.
    private var tableUses: [UInt64: UInt32] = [:]

    init(_ image: Qcow2Image, observer: any ImageCheckObserver) {
        self.image = image
        file = image.file
        geometry = image.header.geometry
        walk = TreeWalk(file: file, geometry: geometry)
        self.observer = observer
        counts = ReferenceCounts(clusterCount: geometry.clusterCount(forByteCount: file.byteCount))
    }

    mutating func found(_ text: String) { observer.found(text) }

    mutating func corruption(_ text: String, isMendable: Bool = false) {
        result.corruptionCount += 1
        if !isMendable { unmendableCount += 1 }
        found("ERROR \(text)")
    }

    mutating func checkError(_ text: String) {
        result.checkErrorCount += 1
        found("ERROR \(text)")
    }

    /// The whole check, without the refcounts themselves: `compare` does those.
    mutating func countReferences() throws(ColdframeError) {
        result.totalClusterCount = geometry.clusterCount(forByteCount: image.diskByteCount)
        refer(HostOffset(0), byteCount: geometry.clusterByteCount, "header")
        try countTables()
        countRefcountStructures()
        countBitmaps()
    }

    /// Adds references to every cluster of a range.
    mutating func refer(
        _ offset: HostOffset, byteCount: UInt64, count: UInt32 = 1, _ what: @autoclosure () -> String
    ) {
        guard byteCount > 0 else { return }
        let first = geometry.cluster(of: offset)
        guard offset.rawValue < Limits.hostByteCount, byteCount < Limits.hostByteCount,
            geometry.cluster(of: offset + (byteCount - 1)) < counts.clusterCount
        else {
            corruption(
                "\(what()): region at offset \(offset.rawValue) of \(byteCount) bytes exceeds the end of the file")
            return
        }
        for cluster in first...geometry.cluster(of: offset + (byteCount - 1)) { counts.add(count, to: cluster) }
    }

    // MARK: Tables

    private mutating func countTables() throws(ColdframeError) {
        do {
            activeL1 = try image.readL1()
        } catch {
            checkError("the active L1 table can't be read: \(error.message)")
        }
        refer(image.header.l1Offset, byteCount: UInt64(activeL1.count) * 8, "active L1 table")
        noteTables(activeL1, "active L1 table")
        try countSnapshots()
        let total = UInt64(tableUses.count)
        var done: UInt64 = 0
        for word in activeL1 {
            let table = word & EntryBits.offsetMask
            // A table that a hostile L1 names twice is walked once.
            guard table != 0, let uses = tableUses.removeValue(forKey: table) else { continue }
            checkTable(HostOffset(table), uses: uses, isActive: true)
            done += 1
            try observer.progressed(done: done, total: total)
        }
        for table in tableUses.keys.sorted() {
            checkTable(HostOffset(table), uses: tableUses[table] ?? 1, isActive: false)
            done += 1
            try observer.progressed(done: done, total: total)
        }
    }

    private mutating func noteTables(_ l1: [UInt64], _ what: String) {
        for (index, word) in l1.enumerated() where word & EntryBits.offsetMask != 0 {
            let table = word & EntryBits.offsetMask
            guard geometry.isClusterAligned(table) else {
                corruption("l2_offset=\(table): Table is not cluster aligned; L1 entry \(index) of \(what) corrupted")
                continue
            }
            tableUses[table, default: 0] &+= 1
        }
    }

    private mutating func countSnapshots() throws(ColdframeError) {
        let contents: SnapshotTable.Contents
        do {
            contents = try SnapshotTable.read(image.header, file)
        } catch {
            return checkError("the snapshot table can't be read: \(error.message)")
        }
        if contents.byteCount > 0 {
            refer(image.header.snapshotTableOffset, byteCount: UInt64(contents.byteCount), "snapshot table")
        }
        // Tables that overlap could make the work larger than the file.
        var budget = file.byteCount
        for entry in contents.entries {
            let byteCount = UInt64(entry.l1EntryCount) * 8
            guard byteCount <= budget else {
                corruption("snapshot \(entry.info.id) (\(entry.info.name)): L1 tables overlap")
                continue
            }
            budget -= byteCount
            do {
                let l1 = try walk.readL1(entry)
                refer(entry.l1Offset, byteCount: byteCount, "L1 table of snapshot \(entry.info.id)")
                noteTables(l1, "snapshot \(entry.info.id)")
            } catch {
                corruption(
                    "snapshot \(entry.info.id) (\(entry.info.name)) l1_offset=\(entry.l1Offset.rawValue): \(error.message)"
                )
            }
        }
    }

    /// Walks one L2 table that `uses` L1 entries point to, the active one among them or not.
    private mutating func checkTable(_ table: HostOffset, uses: UInt32, isActive: Bool) {
        var nextInRow: UInt64 = 0
        refer(table, byteCount: geometry.clusterByteCount, count: uses, "L2 table")
        let words: [UInt64]
        do {
            words = try walk.readTable(table)
        } catch {
            return corruption("L2 table at offset \(table.rawValue): \(error.message)")
        }
        var index = 0
        while index < words.count {
            defer { index += geometry.l2EntryWordCount }
            let entry = L2Entry(words[index], bitmap: geometry.hasExtendedL2 ? words[index + 1] : 0)
            guard entry != .empty else { continue }
            do throws(ColdframeError) {
                try checkEntry(entry, uses: uses, isActive: isActive, &nextInRow)
            } catch {
                corruption("L2 table at offset \(table.rawValue), entry \(index): \(error.message)")
            }
        }
    }

    private mutating func checkEntry(
        _ entry: L2Entry, uses: UInt32, isActive: Bool, _ nextInRow: inout UInt64
    ) throws(ColdframeError) {
        let status = try ClusterStatus(entry, geometry)
        if let range = status.compressed {
            if entry.isCopied {
                corruption("coffset=\(range.offset): copied flag must never be set for compressed clusters")
            }
            let clusters = range.clusters(geometry)
            let first = geometry.hostOffset(ofCluster: clusters.lowerBound)
            refer(
                first, byteCount: UInt64(clusters.count) << UInt64(geometry.clusterBits), count: uses,
                "compressed cluster")
            guard isActive else { return }
            result.allocatedClusterCount += 1
            result.compressedClusterCount += 1
            // Compressed clusters are in no row: they are smaller than what they stand for.
            result.fragmentedClusterCount += 1
            return
        }
        guard let host = status.host else { return }
        if isActive {
            result.allocatedClusterCount += 1
            if nextInRow != 0, host.rawValue != nextInRow { result.fragmentedClusterCount += 1 }
            nextInRow = host.rawValue + geometry.clusterByteCount
        }
        if !geometry.hasExternalData { refer(host, byteCount: geometry.clusterByteCount, count: uses, "data cluster") }
    }

    // MARK: Refcounts and bitmaps

    private mutating func countRefcountStructures() {
        let header = image.header
        let byteCount = UInt64(header.refcountTableClusterCount) << UInt64(geometry.clusterBits)
        refer(header.refcountTableOffset, byteCount: byteCount, "refcount table")
        do {
            let offsets = try file.readWords(
                count: Int(byteCount / 8), at: header.refcountTableOffset, "Refcount table")
            for (index, offset) in offsets.enumerated() where offset != 0 {
                guard geometry.isClusterAligned(offset), offset & ~EntryBits.offsetMask == 0 else {
                    corruption(
                        "refcount block \(index) is not cluster aligned; refcount table entry corrupted",
                        isMendable: true)
                    continue
                }
                guard geometry.cluster(of: HostOffset(offset)) < counts.clusterCount else {
                    corruption("refcount block \(index) is outside image", isMendable: true)
                    continue
                }
                refer(HostOffset(offset), byteCount: geometry.clusterByteCount, "refcount block")
            }
        } catch {
            corruption("the refcount table can't be read: \(error.message)", isMendable: true)
        }
    }

    private mutating func countBitmaps() {
        guard let ext = image.extensions.bitmaps else { return }
        do {
            let entries = try BitmapDirectory.read(ext, geometry, file)
            refer(ext.directoryOffset, byteCount: ext.directoryByteCount, "bitmap directory")
            for entry in entries {
                let table = try BitmapDirectory.readTable(entry, file)
                refer(entry.tableOffset, byteCount: UInt64(table.count) * 8, "bitmap table")
                for item in table {
                    guard item.isValid(geometry) else {
                        corruption("bitmap '\(entry.name)': invalid table entry \(String(item.word, radix: 16))")
                        continue
                    }
                    if item.offset != 0 {
                        refer(HostOffset(item.offset), byteCount: geometry.clusterByteCount, "bitmap '\(entry.name)'")
                    }
                }
            }
        } catch {
            checkError("the bitmaps can't be read: \(error.message)")
        }
    }
}

// MARK: Comparison

extension ImageCheck {
    /// Compares the references with the refcounts in the image, once all are counted.
    mutating func compareRefcounts(_ refcounts: RefcountTable) throws(ColdframeError) {
        let end = max(counts.end, counts.clusterCount)
        var highest: UInt64?
        var cluster: UInt64 = 0
        while cluster < end {
            let index = cluster / geometry.refcountBlockEntryCount
            let next = min(end, (index + 1) * geometry.refcountBlockEntryCount)
            defer { cluster = next }
            let block: RefcountBlock?
            do {
                block = try refcounts.block(index)
            } catch {
                corruption("refcount block \(index): \(error.message)", isMendable: true)
                continue
            }
            for position in cluster..<next {
                let actual = block?[Int(position - index * geometry.refcountBlockEntryCount)] ?? 0
                let expected = counts[position]
                if actual != 0 || expected != 0 { highest = position }
                if actual < expected {
                    corruption("cluster \(position) refcount=\(actual) reference=\(expected)", isMendable: true)
                } else if actual > expected {
                    result.leakCount += 1
                    found("Leaked cluster \(position) refcount=\(actual) reference=\(expected)")
                }
            }
        }
        result.imageEndOffset = ((highest ?? 0) + 1) << UInt64(geometry.clusterBits)
    }

    /// Compares the COPIED flags of the active tables with the refcounts (what there is to report) and with the references
    /// (what a repair makes them).
    mutating func checkFlags(_ refcounts: RefcountTable?) {
        for (index, word) in activeL1.enumerated() where word & EntryBits.offsetMask != 0 {
            let table = HostOffset(word & EntryBits.offsetMask)
            guard geometry.isClusterAligned(table.rawValue) else { continue }
            check(flagOf: word, at: image.header.l1Offset + UInt64(index) * 8, host: table, "L1 entry", refcounts)
            guard !geometry.hasExternalData, let words = try? walk.readTable(table) else { continue }
            var position = 0
            while position < words.count {
                let entry = L2Entry(words[position])
                if !entry.isCompressed, entry.hostOffset != 0, geometry.isClusterAligned(entry.hostOffset) {
                    check(
                        flagOf: entry.word, at: table + UInt64(position) * 8, host: HostOffset(entry.hostOffset),
                        "data cluster", refcounts)
                }
                position += geometry.l2EntryWordCount
            }
        }
    }

    private mutating func check(
        flagOf word: UInt64, at place: HostOffset, host: HostOffset, _ what: String, _ refcounts: RefcountTable?
    ) {
        let cluster = geometry.cluster(of: host)
        guard cluster < counts.clusterCount else { return }
        let isFlagged = word & EntryBits.copied != 0
        if isFlagged != (counts[cluster] == 1), wrongFlags.count < Self.wrongFlagLimit {
            wrongFlags.append((place, word ^ EntryBits.copied, cluster))
        }
        guard let refcount = try? refcounts?.refcount(ofCluster: cluster), isFlagged != (refcount == 1) else { return }
        corruption("OFLAG_COPIED \(what): entry=\(String(word, radix: 16)) refcount=\(refcount)", isMendable: true)
    }

    /// Beyond so many a second repair is needed: memory is bounded by it.
    private static let wrongFlagLimit = 1 << 22
}

import ColdframeKit
import LinuxSystem

/// The persistent bitmaps of an open image: the directory that is in force, and how another takes its place.
///
/// A bitmap that is in use is marked so in the directory before the disk is written, and written anew when the image is
/// closed. New tables and a new directory go to clusters that nothing points to; then one write of the header's sector
/// switches to them (`HeaderSwitch`); then the old ones are freed. A crash leaves the old ones, marked, or the new ones.
final class BitmapStorage: Sendable {
    private let store: ClusterStore
    private let file: ImageFile
    private let geometry: Geometry
    private let state: Locked<State>

    private struct State: Sendable {
        var entries: [BitmapEntry] = []
        var isLoaded = false
    }

    init(store: ClusterStore) {
        self.store = store
        file = store.file
        geometry = store.geometry
        state = Locked(State())
    }

    /// The bitmaps are kept up to date, so that their autoclear bit may stay.
    var isMaintained: Bool { state.withLock { $0.isLoaded } }
    var entries: [BitmapEntry] { state.withLock { $0.entries } }

    // MARK: Load

    /// Reads the directory. If the image is to be written, marks what is in it as in use, durably.
    func load(marking: Bool) throws(ColdframeError) -> [BitmapEntry] {
        guard let ext = store.names.extensions.bitmaps else {
            state.withLock { $0.isLoaded = true }
            return []
        }
        let entries = try BitmapDirectory.read(ext, geometry, file)
        var marked = entries
        if marking {
            for index in marked.indices { marked[index].flags.insert(.inUse) }
            if marked != entries {
                try store.guardian.checkInPlace(ext.directoryOffset, as: .bitmaps)
                // Only flags change, and a flag that is set early does no harm: in place, in any order.
                try file.write(BitmapDirectory.encode(marked), at: ext.directoryOffset)
                try store.flush()
            }
        }
        state.withLock { state in
            state.entries = marked
            state.isLoaded = true
        }
        return entries
    }

    /// The bits of a stored bitmap of a disk of that size.
    func bits(_ entry: BitmapEntry, diskByteCount: UInt64) throws(ColdframeError) -> DirtyBits {
        var bits = DirtyBits(diskByteCount: diskByteCount, granularity: 1 << UInt32(entry.granularityBits))
        let clusterByteCount = Int(geometry.clusterByteCount)
        let needed = (bits.storedByteCount + clusterByteCount - 1) / clusterByteCount
        guard Int(entry.tableEntryCount) == needed else {
            throw ColdframeError(
                .corrupt, "Table of bitmap '\(entry.name)' has \(entry.tableEntryCount) entries instead of \(needed)")
        }
        for (index, item) in try BitmapDirectory.readTable(entry, file).enumerated() {
            guard item.isValid(geometry) else {
                throw ColdframeError(.corrupt, "Table of bitmap '\(entry.name)' has an invalid entry")
            }
            let position = index * clusterByteCount
            if item.isAllOnes {
                let first = UInt64(position) * 8 << UInt64(entry.granularityBits)
                bits.set(at: first, byteCount: UInt64(clusterByteCount) * 8 << UInt64(entry.granularityBits))
            } else if item.offset != 0 {
                let bytes = try file.readMetadata(
                    byteCount: min(clusterByteCount, bits.storedByteCount - position), at: HostOffset(item.offset),
                    "Bitmap '\(entry.name)'")
                bytes.withUnsafeBytes { bits.load($0, at: position) }
            }
        }
        return bits
    }

    // MARK: Store

    /// What is to be in the new directory: a bitmap with its bits, or one that stays as it is stored.
    enum Item {
        case new(name: String, bits: DirtyBits, isAuto: Bool)
        case kept(BitmapEntry)
    }

    /// Makes the directory consist of these. Durable when it returns.
    func replace(by items: [Item]) throws(ColdframeError) {
        let old = (store.names.extensions.bitmaps, self.entries)
        var taken: [ClusterRun] = []
        var entries: [BitmapEntry] = []
        var ext: HeaderExtensions.BitmapsExtension?
        do {
            for item in items {
                switch item {
                case .kept(let entry): entries.append(entry)
                case .new(let name, let bits, let isAuto): entries.append(try write(name, bits, isAuto, &taken))
                }
            }
            if !entries.isEmpty {
                let bytes = BitmapDirectory.encode(entries)
                let offset = try allocateTable(UInt64(bytes.count), &taken)
                try file.write(bytes, at: offset)
                ext = .init(
                    count: UInt32(entries.count), directoryByteCount: UInt64(bytes.count), directoryOffset: offset)
            }
            try store.flush()
            try store.rewriteHeader { $0.setBitmaps(ext) }
        } catch {
            store.freeNow(taken, cause: .other)
            throw error
        }
        state.withLock { $0.entries = entries }
        let kept = Set(entries.map(\.tableOffset.rawValue))
        free(old.0, old.1.filter { !kept.contains($0.tableOffset.rawValue) })
    }

    private func allocateTable(_ byteCount: UInt64, _ taken: inout [ClusterRun]) throws(ColdframeError) -> HostOffset {
        let run = try store.allocateContiguous(geometry.clusterCount(forByteCount: byteCount))
        store.guardian.insert(run, as: .bitmaps)
        taken.append(run)
        return geometry.hostOffset(ofCluster: run.first)
    }

    private func write(
        _ name: String, _ bits: DirtyBits, _ isAuto: Bool, _ taken: inout [ClusterRun]
    ) throws(ColdframeError) -> BitmapEntry {
        // A disk may have grown since the bitmap was made.
        guard BitmapDirectory.canHold(UInt64(bits.storedByteCount), geometry) else {
            throw ColdframeError(
                .unsupported,
                "Bitmap '\(name)' is too large for the image: remove it, or make one of a larger granularity", errno: 27
            )
        }
        let clusterByteCount = Int(geometry.clusterByteCount)
        let count = max(1, (bits.storedByteCount + clusterByteCount - 1) / clusterByteCount)
        var table: [UInt64] = []
        var buffer = [UInt8](repeating: 0, count: clusterByteCount)
        for index in 0..<count {
            buffer.withUnsafeMutableBytes { bits.store(into: $0, from: index * clusterByteCount) }
            if buffer.allSatisfy({ $0 == 0 }) {
                table.append(0)
            } else if buffer.allSatisfy({ $0 == 0xFF }) {
                table.append(1)
            } else {
                let offset = try allocateTable(geometry.clusterByteCount, &taken)
                try file.write(buffer, at: offset)
                table.append(offset.rawValue)
            }
        }
        let offset = try allocateTable(UInt64(count) * 8, &taken)
        try file.writeWords(table, at: offset)
        return BitmapEntry(
            name: name, granularityBits: UInt8(bits.granularity.trailingZeroBitCount), tableOffset: offset,
            tableEntryCount: UInt32(count), flags: isAuto ? .auto : [])
    }

    /// Frees a directory and the bitmaps that only it had. An error leaves a leak.
    private func free(_ ext: HeaderExtensions.BitmapsExtension?, _ entries: [BitmapEntry]) {
        guard let ext else { return }
        func run(_ offset: HostOffset, _ byteCount: UInt64) -> ClusterRun {
            ClusterRun(first: geometry.cluster(of: offset), count: geometry.clusterCount(forByteCount: byteCount))
        }
        var runs = [run(ext.directoryOffset, ext.directoryByteCount)]
        for entry in entries {
            guard let table = try? BitmapDirectory.readTable(entry, file) else { continue }
            for item in table where item.offset != 0 && item.isValid(geometry) {
                runs.append(run(HostOffset(item.offset), geometry.clusterByteCount))
            }
            runs.append(run(entry.tableOffset, UInt64(table.count) * 8))
        }
        store.freeNow(runs, cause: .other)
    }
}

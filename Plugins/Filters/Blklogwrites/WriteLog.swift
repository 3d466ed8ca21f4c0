import ColdframeKit
import LinuxSystem

/// A log that grows. One thread at a time.
final class WriteLog: Sendable {
    /// Where the next entry goes.
    struct Place: Sendable {
        var sectorByteCount: UInt32
        /// The first sector is the superblock's.
        var sector: UInt64 = 1
        var entryCount: UInt64 = 0

        /// Throws QEMU's text if the format does not have such sectors.
        init(sectorByteCount: UInt32) throws(ColdframeError) {
            guard sectorByteCount.nonzeroBitCount == 1, sectorByteCount >= LogEntry.byteCount,
                sectorByteCount < 1 << 24
            else { throw ColdframeError(.invalidArgument, "Invalid log sector size \(sectorByteCount)") }
            self.sectorByteCount = sectorByteCount
        }
    }

    let sectorByteCount: UInt64
    private let node: BlockNode
    private let superblockInterval: UInt64
    private let place: Locked<Place>

    init(_ node: BlockNode, at place: Place, superblockInterval: UInt64) {
        self.node = node
        self.place = Locked(place)
        self.superblockInterval = superblockInterval
        sectorByteCount = UInt64(place.sectorByteCount)
    }

    /// Reads where a log ends. An empty one begins. Blocks; throws QEMU's texts.
    static func end(of log: BlockNode) throws(ColdframeError) -> Place {
        guard log.byteCount > 0 else { return try Place(sectorByteCount: 512) }
        let superblock = try LogSuperblock(
            read(LogSuperblock.byteCount, at: 0, of: log, "Could not read log superblock"))
        var place = try Place(sectorByteCount: superblock.sectorByteCount)
        let size = UInt64(superblock.sectorByteCount)
        // A log has as many entries as sectors at most: each step is one forward, and ends with the log.
        while place.entryCount < superblock.entryCount {
            let words = "Failed to read log entry \(place.entryCount)"
            guard place.sector < log.byteCount / size else { throw failure(words) }
            let entry = LogEntry(try read(LogEntry.byteCount, at: place.sector * size, of: log, words))
            guard entry.flags.isSubset(of: .all) else {
                throw ColdframeError(
                    .corrupt,
                    "Invalid flags 0x\(String(entry.flags.rawValue, radix: 16)) in log entry \(place.entryCount)")
            }
            place.sector += 1
            guard entry.dataSectorCount <= log.byteCount / size - place.sector else {
                throw failure("\(words): its data lies outside the log")
            }
            place.sector += entry.dataSectorCount
            place.entryCount += 1
        }
        return place
    }

    private static func failure(_ words: String) -> ColdframeError {
        ColdframeError(.corrupt, "\(words): \(SystemError.text(errno: Errno.io))")
    }

    private static func read(
        _ byteCount: Int, at offset: UInt64, of log: BlockNode, _ words: String
    ) throws(ColdframeError) -> [UInt8] {
        guard offset <= log.byteCount, UInt64(byteCount) <= log.byteCount - offset else { throw failure(words) }
        var bytes = [UInt8](repeating: 0, count: byteCount)
        do throws(ColdframeError) {
            try bytes.withMutableBytes { (buffer) throws(ColdframeError) in
                try log.direct.read(into: buffer, at: offset)
            }
        } catch { throw error.prefixed(words) }
        return bytes
    }

    /// Appends an entry with what was written; of zeros only their length is given. With a flush or FUA, and now and then, the
    /// superblock follows, and all is on stable storage.
    /// - Parameter data: whole sectors, as many as the entry says; nil for zeros.
    func append(_ entry: LogEntry, data: UnsafeRawBufferPointer?) throws(ColdframeError) {
        let sectorCount = entry.dataSectorCount
        var next = place.withLock { $0 }
        let offset = next.sector * sectorByteCount
        let dataOffset = offset + sectorByteCount
        try reach(dataOffset + sectorCount * sectorByteCount)
        try write(entry.bytes(sectorByteCount: UInt32(sectorByteCount)), at: offset)
        if let data {
            try node.direct.write(data, at: dataOffset)
        } else if sectorCount > 0 {
            try node.direct.writeZeroes(at: dataOffset, byteCount: sectorCount * sectorByteCount)
        }
        // One that could not be written is overwritten by the next: a reader goes from entry to entry.
        next.sector += 1 + sectorCount
        next.entryCount += 1
        place.withLock { $0 = next }
        guard !entry.flags.isDisjoint(with: [.flush, .forceUnitAccess]) || next.entryCount % superblockInterval == 0
        else { return }
        let superblock = LogSuperblock(entryCount: next.entryCount, sectorByteCount: UInt32(sectorByteCount))
        try write(superblock.bytes, at: 0)
        try node.direct.flush()
    }

    private func write(_ bytes: [UInt8], at offset: UInt64) throws(ColdframeError) {
        try bytes.withBytes { (buffer) throws(ColdframeError) in try node.direct.write(buffer, at: offset) }
    }

    private func reach(_ end: UInt64) throws(ColdframeError) {
        guard end > node.byteCount else { return }
        guard let driver = node.driver as? any Growable else {
            throw ColdframeError(
                .io, "Log '\(node.name)' is full, and driver '\(node.driver.driverName)' has a fixed size",
                errno: Errno.noSpace)
        }
        try driver.grow(toByteCount: end)
    }
}

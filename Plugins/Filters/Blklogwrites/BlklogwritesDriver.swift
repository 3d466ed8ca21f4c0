import ColdframeKit
import LinuxSystem

/// An open `blklogwrites` filter. One thread at a time: the order of the log is that in which the disk was changed.
///
/// The log knows whole sectors. Of a sector that is changed in part the rest is read, and the whole is logged; the disk itself gets what
/// was asked for and no more.
final class BlklogwritesDriver: BlockDriver, Resizable, Filtering {
    let driverName = "blklogwrites"
    let threadModel = ThreadModel.serialized
    let isReadOnly: Bool
    let shown: BlockNode
    private let log: WriteLog
    /// Something was changed since the last flush: one that flushes nothing is not logged.
    private let isUnflushed = Locked(false)

    init(_ file: BlockNode, log: WriteLog, isReadOnly: Bool = false) {
        shown = file
        self.log = log
        self.isReadOnly = isReadOnly
    }

    // MARK: Writing

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        guard !buffer.isEmpty else { return }
        let range = offset..<offset + UInt64(buffer.count)
        let sectors = range.outward(log.sectorByteCount)
        let entryFlags: LogEntry.Flags = flags.contains(.forceUnitAccess) ? .forceUnitAccess : []
        if sectors == range {
            try change { () throws(ColdframeError) in
                try shown.direct.write(buffer, at: offset, flags: flags)
            } noting: { () throws(ColdframeError) in
                try log.append(entry(sectors, entryFlags), data: buffer)
            }
            return
        }
        let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: sectors.count, alignment: 4096)
        defer { whole.deallocate() }
        try readEnds(of: sectors, around: range, into: whole)
        UnsafeMutableRawBufferPointer(rebasing: whole[Int(range.lowerBound - sectors.lowerBound)...])
            .copyMemory(from: buffer)
        try change { () throws(ColdframeError) in
            try shown.direct.write(buffer, at: offset, flags: flags)
        } noting: { () throws(ColdframeError) in
            try log.append(entry(sectors, entryFlags), data: UnsafeRawBufferPointer(whole))
        }
    }

    /// Reads the first and the last sector where they are changed in part. What lies behind the disk's end is zeros.
    private func readEnds(
        of sectors: Range<UInt64>, around range: Range<UInt64>, into whole: UnsafeMutableRawBufferPointer
    ) throws(ColdframeError) {
        let size = log.sectorByteCount
        var starts: Set<UInt64> = []
        if sectors.lowerBound < range.lowerBound { starts.insert(sectors.lowerBound) }
        if sectors.upperBound > range.upperBound { starts.insert(sectors.upperBound - size) }
        for start in starts {
            let part = UnsafeMutableRawBufferPointer(
                rebasing: whole[Int(start - sectors.lowerBound)..<Int(start - sectors.lowerBound + size)])
            part.initializeMemory(as: UInt8.self, repeating: 0)
            let there = Int(min(size, shown.byteCount - start))
            try shown.direct.read(into: UnsafeMutableRawBufferPointer(rebasing: part[..<there]), at: start)
        }
    }

    /// Whole sectors are logged as zeros; what is a part of one is written.
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let range = offset..<offset + byteCount
        guard let middle = range.inward(log.sectorByteCount) else {
            return try writeZeroBytes(range, flags)
        }
        try writeZeroBytes(range.lowerBound..<middle.lowerBound, flags)
        try change { () throws(ColdframeError) in
            try shown.direct.writeZeroes(
                at: middle.lowerBound, byteCount: UInt64(middle.count), flags: flags)
        } noting: { () throws(ColdframeError) in
            try log.append(entry(middle, flags.contains(.forceUnitAccess) ? .forceUnitAccess : []), data: nil)
        }
        try writeZeroBytes(middle.upperBound..<range.upperBound, flags)
    }

    /// Of less than two sectors.
    private func writeZeroBytes(_ range: Range<UInt64>, _ flags: WriteFlags) throws(ColdframeError) {
        let zeros = [UInt8](repeating: 0, count: range.count)
        try zeros.withBytes { (buffer) throws(ColdframeError) in
            try write(buffer, at: range.lowerBound, flags: flags.subtracting([.mayUnmap, .noFallback]))
        }
    }

    /// Only whole sectors: what the log does not say does not happen.
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        guard let sectors = (offset..<offset + byteCount).inward(log.sectorByteCount) else { return }
        try change { () throws(ColdframeError) in
            try shown.direct.discard(at: sectors.lowerBound, byteCount: UInt64(sectors.count))
        } noting: { () throws(ColdframeError) in
            try log.append(entry(sectors, .discard), data: nil)
        }
    }

    func flush() throws(ColdframeError) {
        guard isUnflushed.withLock({ $0 }) else { return try shown.direct.flush() }
        try change { () throws(ColdframeError) in
            try shown.direct.flush()
        } noting: { () throws(ColdframeError) in
            try log.append(LogEntry(flags: .flush), data: nil)
        }
        isUnflushed.withLock { $0 = false }
    }

    /// Changes the disk, then the log, also if the disk could not be changed: some of it may have been.
    private func change(
        _ work: () throws(ColdframeError) -> Void, noting note: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        isUnflushed.withLock { $0 = true }
        var failure: ColdframeError?
        do throws(ColdframeError) { try work() } catch { failure = error }
        do throws(ColdframeError) { try note() } catch { throw error.prefixed("Could not write the log") }
        if let failure { throw failure }
    }

    private func entry(_ sectors: Range<UInt64>, _ flags: LogEntry.Flags) -> LogEntry {
        LogEntry(
            sector: sectors.lowerBound / log.sectorByteCount, sectorCount: UInt64(sectors.count) / log.sectorByteCount,
            flags: flags)
    }

    /// The log ends with a flush, which tells how many entries there are.
    func close() throws(ColdframeError) {
        if isUnflushed.withLock({ $0 }) { try flush() }
    }
}

extension Range<UInt64> {
    /// The sectors that the range touches.
    fileprivate func outward(_ sectorByteCount: UInt64) -> Range {
        let end = (upperBound + sectorByteCount - 1) / sectorByteCount * sectorByteCount
        return lowerBound / sectorByteCount * sectorByteCount..<end
    }

    /// The sectors that lie in it, or nil for none.
    fileprivate func inward(_ sectorByteCount: UInt64) -> Range? {
        let start = (lowerBound + sectorByteCount - 1) / sectorByteCount * sectorByteCount
        let end = upperBound / sectorByteCount * sectorByteCount
        return start < end ? start..<end : nil
    }
}

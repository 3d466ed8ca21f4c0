import LinuxSystem

/// Gathers the guest's RAM into huge pages ahead of a live capture.
///
/// QEMU write-protects all of the RAM inside its stop, which takes long for small pages (some 20 to 40 ms per GiB) and next
/// to nothing for huge ones. RAM is made of huge pages at first, but each live capture splits all of them, so that without
/// this the second capture of a guest would stop it for longer than the first.
///
/// RAM that the guest has never written stays as it is: to gather it would be to allocate it.
struct GuestMemory: Sendable {
    let processID: Int32

    /// Between two looks at `isCancelled`.
    private static let stepByteCount: UInt64 = 32 << 20

    /// Goes over all of the RAM; blocks, up to a second per GiB that is not huge yet. Returns the bytes that are in huge
    /// pages now. Throws where the host does not allow it: the pause is then longer, and nothing else is wrong.
    func gather(isCancelled: () -> Bool) throws(SystemError) -> UInt64 {
        let memory = try ProcessMemory(processID: processID)
        var gathered: UInt64 = 0
        for area in try memory.hugePageAreas() {
            var address = Self.roundedUp(area.lowerBound)
            let end = area.upperBound / ProcessMemory.hugePageByteCount * ProcessMemory.hugePageByteCount
            while address < end, !isCancelled() {
                let step = address..<min(address + Self.stepByteCount, end)
                for range in try Self.writtenRanges(memory, step) {
                    gathered += try Self.collapse(range, of: memory)
                }
                address = step.upperBound
            }
        }
        return gathered
    }

    /// The parts of `range` made of huge pages' worth of memory in which the guest has written something.
    private static func writtenRanges(
        _ memory: ProcessMemory, _ range: Range<UInt64>
    ) throws(SystemError) -> [Range<UInt64>] {
        let pagesPerHugePage = Int(ProcessMemory.hugePageByteCount / ProcessMemory.pageByteCount)
        let count = Int((range.upperBound - range.lowerBound) / ProcessMemory.pageByteCount)
        let isInUse = try memory.pagesInUse(from: range.lowerBound, count: count)
        var ranges: [Range<UInt64>] = []
        for first in stride(from: 0, to: count, by: pagesPerHugePage)
        where isInUse[first..<(first + pagesPerHugePage)].contains(true) {
            let start = range.lowerBound + UInt64(first) * ProcessMemory.pageByteCount
            let end = start + ProcessMemory.hugePageByteCount
            if let last = ranges.last, last.upperBound == start {
                ranges[ranges.count - 1] = last.lowerBound..<end
            } else {
                ranges.append(start..<end)
            }
        }
        return ranges
    }

    private static func collapse(_ range: Range<UInt64>, of memory: ProcessMemory) throws(SystemError) -> UInt64 {
        do {
            try memory.collapse(range)
            return range.upperBound - range.lowerBound
        } catch {
            // Pages that are pinned, or no huge page to be had: the rest is worth the trouble all the same.
            guard [Errno.tryAgain, Errno.noMemory, Errno.busy].contains(error.errno) else { throw error }
            return 0
        }
    }

    private static func roundedUp(_ address: UInt64) -> UInt64 {
        (address + ProcessMemory.hugePageByteCount - 1) / ProcessMemory.hugePageByteCount
            * ProcessMemory.hugePageByteCount
    }
}

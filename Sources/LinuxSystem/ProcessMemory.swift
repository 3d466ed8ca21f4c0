import CLinux
import Glibc

/// The memory of another process, as `/proc/PID` shows it (proc(5)), and what may be advised about it
/// (process_madvise(2)). Any thread; the calls block, and fail with ESRCH or ENOENT once the process has ended.
///
/// The page map needs CAP_SYS_ADMIN to be of use, advice needs CAP_SYS_NICE and the right to trace the process.
public final class ProcessMemory: Sendable {
    public static let pageByteCount: UInt64 = 4096
    /// Of a huge page on x86-64.
    public static let hugePageByteCount: UInt64 = 2 << 20

    private let processID: Int32
    private let process: Descriptor
    private let pageMap: Descriptor

    public init(processID: Int32) throws(SystemError) {
        self.processID = processID
        process = try ProcessControl.pidfdOpen(processID)
        pageMap = try Descriptor.open("/proc/\(processID)/pagemap", .readOnly)
    }

    /// Private, writable areas for which the process has asked for huge pages (madvise(2) MADV_HUGEPAGE): the RAM of a
    /// guest, if it is not shared.
    public func hugePageAreas() throws(SystemError) -> [Range<UInt64>] {
        Self.hugePageAreas(inSmaps: String(decoding: try Files.readAll("/proc/\(processID)/smaps"), as: UTF8.self))
    }

    /// The areas in the text of `smaps`; what does not read as it should is left out.
    static func hugePageAreas(inSmaps text: String) -> [Range<UInt64>] {
        var areas: [Range<UInt64>] = []
        var current: Range<UInt64>?
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.first == "VmFlags:" {
                if let area = current, words.contains("hg"), words.contains("wr"), !words.contains("sh") {
                    areas.append(area)
                }
                current = nil
            } else if let first = words.first, !first.hasSuffix(":") {
                let ends = first.split(separator: "-").compactMap { UInt64($0, radix: 16) }
                current = ends.count == 2 && ends[0] < ends[1] ? ends[0]..<ends[1] : nil
            }
        }
        return areas
    }

    /// Whether each of the pages from `address` on is in memory and holds something of its own: not absent, swapped out,
    /// or the kernel's page of zeros, which stands for memory that was read and never written.
    public func pagesInUse(from address: UInt64, count: Int) throws(SystemError) -> [Bool] {
        let zeroFrame = try Self.zeroPageFrame.get()
        let entries = try Self.entries(of: pageMap, from: address, count: count)
        return entries.map { entry in
            let frame = Self.frame(of: entry)
            return frame != 0 && frame != zeroFrame
        }
    }

    /// Gathers the range's small pages into huge ones, by copying them. The process goes on meanwhile, but for moments in
    /// which it touches a huge page that is being made. Pages that are absent become memory of zeros.
    public func collapse(_ range: Range<UInt64>) throws(SystemError) {
        let (process, count) = (process.raw, Int(range.upperBound - range.lowerBound))
        _ = try SystemCall.run("process_madvise", "\(processID)") {
            cf_collapse_pages(process, range.lowerBound, count)
        }
    }

    /// The number of the page frame in an entry of a page map; 0 if there is none, or if it is not for us to know.
    private static func frame(of entry: UInt64) -> UInt64 {
        let isPresent = entry >> 63 == 1
        return isPresent ? entry & (1 << 55 - 1) : 0
    }

    private static func entries(
        of pageMap: Descriptor, from address: UInt64, count: Int
    ) throws(SystemError) -> [UInt64] {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count * 8, alignment: 8)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt64.self, repeating: 0)
        // What the process has not mapped is missing at the end: zeros.
        _ = try pageMap.preadFull(into: buffer, at: address / pageByteCount * 8)
        return Array(buffer.bindMemory(to: UInt64.self))
    }

    /// Which frame is the kernel's page of zeros.
    private static let zeroPageFrame = Result { () throws(SystemError) in
        guard let page = cf_map_zero_page(Int(pageByteCount)) else {
            throw SystemError(errno: errno, operation: "mmap")
        }
        defer { munmap(page, Int(pageByteCount)) }
        let own = "/proc/self/pagemap"
        let address = UInt64(UInt(bitPattern: page))
        let entry = try entries(of: try Descriptor.open(own, .readOnly), from: address, count: 1)[0]
        let frame = ProcessMemory.frame(of: entry)
        // The kernel shows no frame numbers to the unprivileged.
        if frame == 0 { throw SystemError(errno: EPERM, operation: "read", subject: own) }
        return frame
    }
}

import CLinux

/// The write protection that another process has put on its own memory by userfaultfd, seen from outside.
public enum UserFaults {
    /// Whether a process has a userfaultfd at all; cheap, where the ranges cost a walk over its page tables.
    public static func areUsed(by processID: Int32) throws(SystemError) -> Bool {
        try !descriptors(of: processID).isEmpty
    }

    /// Address ranges of a process that are registered for write faults (`uw` in the `VmFlags` of `smaps`).
    public static func protectedRanges(of processID: Int32) throws(SystemError) -> [Range<UInt64>] {
        let text = try Files.readAll("/proc/\(processID)/smaps", limit: 64 << 20)
        var ranges: [Range<UInt64>] = []
        var current: Range<UInt64>?
        for line in text.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(separator: UInt8(ascii: " "))
            guard let first = words.first else { continue }
            if let range = range(first) {
                current = range
            } else if first.elementsEqual("VmFlags:".utf8), let range = current,
                words.contains(where: { $0.elementsEqual("uw".utf8) })
            {
                ranges.append(range)
            }
        }
        return ranges
    }

    /// `7f0000000000-7f0000100000`
    private static func range(_ word: ArraySlice<UInt8>) -> Range<UInt64>? {
        let ends = word.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        guard ends.count == 2, let start = UInt64(String(decoding: ends[0], as: UTF8.self), radix: 16),
            let end = UInt64(String(decoding: ends[1], as: UTF8.self), radix: 16), start < end
        else { return nil }
        return start..<end
    }

    /// Takes the protection off `ranges` and wakes whoever waits for a page of theirs, through copies of the process's own
    /// userfaultfds. Needs the right to trace the process (CAP_SYS_PTRACE, or its user and no Yama).
    public static func lift(_ ranges: [Range<UInt64>], of processID: Int32) throws(SystemError) {
        let process = try ProcessControl.pidfdOpen(processID)
        var failure = SystemError(errno: Errno.noEntry, operation: "userfaultfd", subject: "process \(processID)")
        var lifted: Set<UInt64> = []
        for number in try descriptors(of: processID) {
            let faults = Descriptor(
                owning: try SystemCall.run("pidfd_getfd", "\(processID)") { cf_pidfd_getfd(process.raw, number) })
            for range in ranges {
                let byteCount = range.upperBound - range.lowerBound
                do {
                    _ = try SystemCall.run("UFFDIO_UNREGISTER") {
                        cf_userfault_unregister(faults.raw, range.lowerBound, byteCount)
                    }
                    _ = try SystemCall.run("UFFDIO_WAKE") { cf_userfault_wake(faults.raw, range.lowerBound, byteCount) }
                    lifted.insert(range.lowerBound)
                } catch {
                    // Perhaps it belongs to another of its userfaultfds.
                    failure = error
                }
            }
        }
        if lifted.count < ranges.count { throw failure }
    }

    /// Numbers of the process's userfaultfds.
    private static func descriptors(of processID: Int32) throws(SystemError) -> [Int32] {
        let folder = "/proc/\(processID)/fd"
        return try Files.listDirectory(folder).filter { name in
            (try? Files.linkTarget("\(folder)/\(name)")) == "anon_inode:[userfaultfd]"
        }.compactMap { Int32($0) }
    }
}

/// What the host says of its memory as a whole.
public enum HostMemory {
    /// MemAvailable of `/proc/meminfo`: what can be had without swapping, in bytes.
    public static func availableByteCount() throws(SystemError) -> UInt64 {
        let text = String(decoding: try Files.readAll("/proc/meminfo", limit: 1 << 16), as: UTF8.self)
        for line in text.split(separator: "\n") where line.hasPrefix("MemAvailable:") {
            let words = line.split(separator: " ")
            if words.count > 1, let kibibytes = UInt64(words[1]) { return kibibytes << 10 }
        }
        throw SystemError(errno: Errno.noData, operation: "read", subject: "/proc/meminfo")
    }

    /// Of reserved huge pages of every size, what no process has, in bytes (`/sys/kernel/mm/hugepages`); 0 where the host
    /// has none.
    public static func freeHugePageByteCount() throws(SystemError) -> UInt64 {
        let folder = "/sys/kernel/mm/hugepages"
        guard Files.exists(folder) else { return 0 }
        var sum: UInt64 = 0
        for name in try Files.listDirectory(folder) {
            // hugepages-2048kB
            guard name.hasPrefix("hugepages-"), name.hasSuffix("kB"),
                let kibibytes = UInt64(name.dropFirst("hugepages-".count).dropLast(2))
            else { continue }
            // Promised to mappings that have not touched them yet.
            let free = try number("\(folder)/\(name)/free_hugepages")
            let promised = try number("\(folder)/\(name)/resv_hugepages")
            sum += (free > promised ? free - promised : 0) * (kibibytes << 10)
        }
        return sum
    }

    /// Whether a file or folder lies in a file system of huge pages, whose files are made of them.
    public static func isOfHugePages(path: String) throws(SystemError) -> Bool {
        let magic: Int64 = 0x9584_58f6
        let file = try Descriptor.open(path, [.readOnly])
        defer { file.close() }
        return try file.fileSystemType() == magic
    }

    private static func number(_ path: String) throws(SystemError) -> UInt64 {
        let text = String(decoding: try Files.readAll(path, limit: 64), as: UTF8.self)
        guard let value = UInt64(text.split(separator: "\n").first ?? "") else {
            throw SystemError(errno: Errno.noData, operation: "read", subject: path)
        }
        return value
    }
}

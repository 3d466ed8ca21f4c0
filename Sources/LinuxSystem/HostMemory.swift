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
}

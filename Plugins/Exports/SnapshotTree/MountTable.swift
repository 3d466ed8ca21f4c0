import LinuxSystem

/// What is mounted where, as this process sees it (`/proc/self/mountinfo`, proc(5)).
enum MountTable {
    struct Entry: Sendable, Equatable {
        var id: Int
        /// "major:minor" of its files.
        var device: String
        var mountpoint: String
        var fileSystemType: String
        var source: String

        /// Mounted by an agent, this one or another.
        var isSnapshotTree: Bool { fileSystemType == "fuse.coldframe" }
    }

    /// In the order of mounting; empty where there is no /proc.
    static func read() -> [Entry] {
        guard let bytes = try? Files.readAll("/proc/self/mountinfo") else { return [] }
        return parse(String(decoding: bytes, as: UTF8.self))
    }

    static func parse(_ text: String) -> [Entry] {
        text.split(separator: "\n").compactMap { line in
            // id parent device root mountpoint options [optional fields] - type source options
            let words = line.split(separator: " ", omittingEmptySubsequences: false)
            guard words.count > 5, let id = Int(words[0]), let separator = words[5...].firstIndex(of: "-"),
                separator + 2 < words.count
            else { return nil }
            return Entry(
                id: id, device: String(words[2]), mountpoint: unescaped(words[4]),
                fileSystemType: String(words[separator + 1]), source: unescaped(words[separator + 2]))
        }
    }

    /// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
    private static func unescaped(_ word: Substring) -> String {
        var bytes: [UInt8] = []
        let utf8 = Array(word.utf8)
        var index = 0
        while index < utf8.count {
            if utf8[index] == UInt8(ascii: "\\"), index + 3 < utf8.count,
                let value = UInt8(String(decoding: utf8[index + 1...index + 3], as: UTF8.self), radix: 8)
            {
                bytes.append(value)
                index += 4
            } else {
                bytes.append(utf8[index])
                index += 1
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

import ColdframeKit
import LinuxSystem

/// A volume of a filesystem, made by tools that nobody here wrote, and what is on it.
public struct FilesystemSample: Sendable {
    public let bytes: [UInt8]
    /// Contents of its files by path; nil if no tool was found that fills a filesystem of the type.
    public let files: [String: [UInt8]]?

    /// A volume of the type: by `mkfs.TYPE`, with files if it is known how to put them there. A type that nobody has tools for
    /// gets random bytes.
    public init(type: String, byteCount: Int = 8 << 20, options: [String] = []) throws {
        let folder = try ToolFolder()
        let tool = ["/usr/sbin", "/sbin", "/usr/bin"].map { "\($0)/mkfs.\(type)" }.first(where: Files.exists)
        guard let tool else {
            bytes = SeededGenerator.bytes(1 << 20, seed: 1)
            files = nil
            return
        }
        let image = folder.path("volume")
        try Descriptor.open(image, [.readWrite, .create]).truncate(toByteCount: UInt64(byteCount))
        let made = try folder.run(tool, options + [image])
        guard made.status == 0 else { throw ColdframeError(.io, "\(tool): \(made.output)") }
        if type == "fat" {
            let contents = Self.tree(for: byteCount)
            try Self.write(contents, below: folder.path("tree"))
            let names = try Files.listDirectory(folder.path("tree")).map { folder.path("tree/\($0)") }
            // Names are in UTF-8 only by the locale; sizes that no diskette had are meant.
            let copied = try folder.run(
                "env", ["LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=1", "mcopy", "-s", "-i", image] + names + ["::"])
            guard copied.status == 0 else { throw ColdframeError(.io, "mcopy: \(copied.output)") }
            files = contents
        } else {
            files = nil
        }
        bytes = try Files.readAll(image, limit: 1 << 30)
    }

    /// Files of none, few and many clusters, names of each kind, a directory of several clusters.
    private static func tree(for byteCount: Int) -> [String: [UInt8]] {
        var files: [String: [UInt8]] = [
            "/EMPTY.TXT": [], "/SHORT.BIN": SeededGenerator.bytes(1, seed: 1),
            "/large file.bin": SeededGenerator.bytes(byteCount / 8 + 77, seed: 2),
            "/Ein längerer Name, groß & klein.txt": SeededGenerator.bytes(5_000, seed: 3),
            "/directory/inner/deepest/lower.txt": SeededGenerator.bytes(513, seed: 4),
            "/directory/" + String(repeating: "n", count: 200): SeededGenerator.bytes(100, seed: 5),
        ]
        for number in 0..<40 {
            files["/many/a file with a name of some length \(number)"] = SeededGenerator.bytes(number, seed: 6)
        }
        return files
    }

    private static func write(_ files: [String: [UInt8]], below folder: String) throws {
        for (path, bytes) in files {
            try Files.mkdirWithParents(Files.parentDirectory(of: folder + path))
            try Descriptor.open(folder + path, [.writeOnly, .create]).writeAll(bytes)
        }
    }
}

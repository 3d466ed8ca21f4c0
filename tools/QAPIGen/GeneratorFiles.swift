import Glibc

/// Files, read and written by the C library alone: the generator depends on nothing.
enum GeneratorFiles {
    static func read(_ path: String) -> [UInt8]? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            if count == 0 { return ferror(file) == 0 ? bytes : nil }
            bytes += buffer[..<count]
        }
    }

    /// Writes only what changed, so that nothing is compiled again without need.
    static func writeIfChanged(_ path: String, _ text: String) -> Bool {
        let bytes = Array(text.utf8)
        if read(path) == bytes { return true }
        guard let file = fopen(path, "w") else { return false }
        let count = fwrite(bytes, 1, bytes.count, file)
        return fclose(file) == 0 && count == bytes.count
    }

    /// Says something on the standard error stream.
    static func report(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        _ = write(STDERR_FILENO, bytes, bytes.count)
    }
}

import Glibc

// Whole small files, and the steps that make them survive a crash.

extension Files {
    /// The whole file. EFBIG if it holds more than `limit` bytes.
    public static func readAll(_ path: String, limit: Int = 64 << 20) throws(SystemError) -> [UInt8] {
        let file = try Descriptor.open(path, .readOnly)
        var bytes: [UInt8] = []
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { piece.deallocate() }
        while true {
            let count = try file.read(into: piece)
            if count == 0 { return bytes }
            guard count <= limit - bytes.count else {
                throw SystemError(errno: EFBIG, operation: "read", subject: path)
            }
            bytes.append(contentsOf: piece[..<count])
        }
    }

    /// Replaces the file so that a crash leaves the old or the new content, whole: a new file beside it, fsync, rename,
    /// fsync of the directory.
    public static func replaceAtomically(
        _ path: String, contents: [UInt8], mode: UInt32 = 0o600
    ) throws(SystemError) {
        try Directory(parentDirectory(of: path)).replaceAtomically(
            lastComponent(of: path), contents: contents, mode: mode)
    }

    /// `fsync(2)` of a directory: names made, changed or removed in it are durable.
    public static func synchronizeDirectory(_ path: String) throws(SystemError) {
        try Descriptor.open(path, [.readOnly, .directory]).synchronize()
    }

    /// Makes a new directory, 0700, under `$TMPDIR` or `/tmp` (`mkdtemp(3)`), and returns its path.
    public static func temporaryDirectory(prefix: String) throws(SystemError) -> String {
        let base = ProcessControl.environment("TMPDIR").flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp"
        var template = Array("\(base)/\(prefix).XXXXXX".utf8CString)
        try SystemCall.checkFault("mkdtemp", base)
        let path = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
        }
        guard let path else { throw SystemError(errno: errno, operation: "mkdtemp", subject: base) }
        return path
    }

    /// Removes a file, or a directory with all that is in it. Links are removed, not followed. Nothing there is no error.
    public static func removeTree(_ path: String) throws(SystemError) {
        let found: FileStatus
        do {
            found = try status(path, followLinks: false)
        } catch {
            if error.errno == ENOENT { return }
            throw error
        }
        guard found.isDirectory else { return try unlink(path) }
        for name in try listDirectory(path) { try removeTree("\(path)/\(name)") }
        try rmdir(path)
    }
}

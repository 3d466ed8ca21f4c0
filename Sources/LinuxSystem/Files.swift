import CLinux
import Glibc

/// Work on files by path.
public enum Files {
    /// `stat(2)`, or `lstat(2)` of a symbolic link itself.
    public static func status(_ path: String, followLinks: Bool = true) throws(SystemError) -> FileStatus {
        var status = stat()
        try SystemCall.run(followLinks ? "stat" : "lstat", path: path) {
            followLinks ? stat(path, &status) : lstat(path, &status)
        }
        return FileStatus(status)
    }

    /// Something is there, if only a dangling link.
    public static func exists(_ path: String) -> Bool {
        (try? status(path, followLinks: false)) != nil
    }

    /// `unlink(2)`.
    public static func unlink(_ path: String) throws(SystemError) {
        _ = try FileChanges.perform { () throws(SystemError) in
            try SystemCall.run("unlink", path: path) { Glibc.unlink(path) }
        } _: { _ in
            .remove(path: path)
        }
    }

    /// `rename(2)`: replaces what is at `to`.
    public static func rename(from: String, to: String) throws(SystemError) {
        if to.utf8.contains(0) { throw SystemError(errno: EINVAL, operation: "rename", subject: to) }
        _ = try FileChanges.perform { () throws(SystemError) in
            try SystemCall.run("rename", path: from) { Glibc.rename(from, to) }
        } _: { _ in
            .rename(from: from, to: to)
        }
    }

    /// `mkdir(2)`.
    public static func mkdir(_ path: String, mode: UInt32 = 0o700) throws(SystemError) {
        _ = try FileChanges.perform { () throws(SystemError) in
            try SystemCall.run("mkdir", path: path) { Glibc.mkdir(path, mode) }
        } _: { _ in
            .makeDirectory(path: path)
        }
    }

    /// Makes the directory and those above it that are missing. One that exists is left as it is.
    public static func mkdirWithParents(_ path: String, mode: UInt32 = 0o700) throws(SystemError) {
        do {
            try mkdir(path, mode: mode)
        } catch {
            switch error.errno {
            case EEXIST where (try? status(path))?.isDirectory == true: return
            case ENOENT:
                let parent = parentDirectory(of: path)
                guard parent != path else { throw error }
                try mkdirWithParents(parent, mode: mode)
                try mkdirWithParents(path, mode: mode)
            default: throw error
            }
        }
    }

    /// `rmdir(2)`.
    public static func rmdir(_ path: String) throws(SystemError) {
        _ = try FileChanges.perform { () throws(SystemError) in
            try SystemCall.run("rmdir", path: path) { Glibc.rmdir(path) }
        } _: { _ in
            .remove(path: path)
        }
    }

    /// `chmod(2)`.
    public static func chmod(_ path: String, mode: UInt32) throws(SystemError) {
        try SystemCall.run("chmod", path: path) { Glibc.chmod(path, mode) }
    }

    /// `symlink(2)`: a link at `path` that holds `target`.
    public static func symlink(target: String, at path: String) throws(SystemError) {
        try SystemCall.run("symlink", path: path) { Glibc.symlink(target, path) }
    }

    /// `readlink(2)`: what the link at `path` holds.
    public static func linkTarget(_ path: String) throws(SystemError) -> String {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = try SystemCall.run("readlink", path: path) { Glibc.readlink(path, &bytes, bytes.count) }
        return String(decoding: bytes.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Names in a directory without `.` and `..`, sorted by bytes (`readdir(3)`).
    public static func listDirectory(_ path: String) throws(SystemError) -> [String] {
        if path.utf8.contains(0) { throw SystemError(errno: EINVAL, operation: "opendir", subject: path) }
        try SystemCall.checkFault("opendir", path)
        guard let directory = opendir(path) else {
            throw SystemError(errno: errno, operation: "opendir", subject: path)
        }
        defer { closedir(directory) }
        return try names(in: directory, path)
    }

    /// What is left of a listing.
    static func names(in directory: OpaquePointer, _ path: String) throws(SystemError) -> [String] {
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(directory) else {
                if errno != 0 { throw SystemError(errno: errno, operation: "readdir", subject: path) }
                break
            }
            // d_name is NUL-terminated within the entry, which lives until the next readdir.
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    /// `realpath(3)`: absolute, without links, `.` and `..`; the file must exist.
    public static func canonicalPath(_ path: String) throws(SystemError) -> String {
        if path.utf8.contains(0) { throw SystemError(errno: EINVAL, operation: "realpath", subject: path) }
        try SystemCall.checkFault("realpath", path)
        guard let text = realpath(path, nil) else {
            throw SystemError(errno: errno, operation: "realpath", subject: path)
        }
        defer { free(text) }
        return String(cString: text)
    }

    /// `path` made absolute by the working directory, nothing else changed.
    public static func absolutePath(_ path: String) throws(SystemError) -> String {
        path.utf8.first == UInt8(ascii: "/") ? path : try canonicalPath(".") + "/" + path
    }

    /// The part before the last `/`: `.` if there is none.
    public static func parentDirectory(of path: String) -> String {
        var bytes = path.utf8[...]
        while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
        guard let slash = bytes.lastIndex(of: UInt8(ascii: "/")) else { return "." }
        let parent = bytes[..<slash]
        return parent.isEmpty ? "/" : String(parent) ?? "/"
    }

    /// The part behind the last `/`.
    public static func lastComponent(of path: String) -> String {
        guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return path }
        return String(path[path.utf8.index(after: slash)...])
    }
}

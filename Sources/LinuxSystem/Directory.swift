import CLinux
import Glibc

/// An open directory, and work on the files in it.
///
/// It stays the same one whatever becomes of its name: who renames it, or puts another in its place, leads nobody to the
/// files of that other one. Names are one component each; EINVAL for others. Links are never followed. Any thread; it is
/// closed with the last reference.
public final class Directory: Sendable {
    /// Where it was when it was opened: for texts.
    public let path: String
    private let file: Descriptor

    /// Opens what is at `path`. A link at its end is ELOOP or ENOTDIR, unless `followLinks`.
    public init(_ path: String, followLinks: Bool = true) throws(SystemError) {
        self.path = path
        file = try Descriptor.open(path, followLinks ? [.readOnly, .directory] : [.readOnly, .directory, .noFollow])
    }

    /// `fstat(2)` of the directory itself.
    public func status() throws(SystemError) -> FileStatus { try file.status() }

    /// `fsync(2)`: names made, changed or removed in it are durable.
    public func synchronize() throws(SystemError) { try file.synchronize() }

    // MARK: Files in it

    /// `openat(2)` with O_CLOEXEC and O_NOFOLLOW.
    /// - Parameter mode: permissions of a file that `.create` makes, before the umask.
    public func open(_ name: String, _ flags: OpenFlags, mode: UInt32 = 0o600) throws(SystemError) -> Descriptor {
        let (directory, bits) = (file.raw, flags.union(.noFollow).rawValue)
        func open() throws(SystemError) -> Descriptor {
            Descriptor(owning: try run("open", name) { cf_openat(directory, name, bits, mode) })
        }
        guard !flags.isDisjoint(with: [.create, .truncate]) else { return try open() }
        var isThere = false
        return try FileChanges.perform { () throws(SystemError) in
            isThere = (try? status(of: name)) != nil
            return try open()
        } _: { file in
            FileChanges.key(file.raw).flatMap { key in
                isThere
                    ? (flags.contains(.truncate) ? .resize(key, byteCount: 0) : nil)
                    : .make(path: place(of: name), key)
            }
        }
    }

    /// `fstatat(2)`, of a link itself.
    public func status(of name: String) throws(SystemError) -> FileStatus {
        var status = stat()
        try run("stat", name) { fstatat(file.raw, name, &status, AT_SYMLINK_NOFOLLOW) }
        return FileStatus(status)
    }

    /// Something is there, if only a dangling link.
    public func contains(_ name: String) -> Bool { (try? status(of: name)) != nil }

    /// `unlinkat(2)` of a file.
    public func unlink(_ name: String) throws(SystemError) {
        _ = try FileChanges.perform { () throws(SystemError) in
            try run("unlink", name) { unlinkat(file.raw, name, 0) }
        } _: { _ in
            .remove(path: place(of: name))
        }
    }

    /// `renameat(2)` within the directory: replaces what is at `to`.
    public func rename(from: String, to: String) throws(SystemError) {
        try check(to, "rename")
        _ = try FileChanges.perform { () throws(SystemError) in
            try run("rename", from) { renameat(file.raw, from, file.raw, to) }
        } _: { _ in
            .rename(from: place(of: from), to: place(of: to))
        }
    }

    /// Names without `.` and `..`, sorted by bytes (`readdir(3)`).
    public func names() throws(SystemError) -> [String] {
        // The place in a listing belongs to the open directory: one of its own for each.
        let own = Descriptor(
            owning: try SystemCall.run("open", path) { cf_openat(file.raw, ".", O_RDONLY | O_DIRECTORY, 0) })
        try SystemCall.checkFault("opendir", path)
        guard let listing = fdopendir(own.raw) else {
            throw SystemError(errno: errno, operation: "opendir", subject: path)
        }
        // The listing closes it.
        _ = own.release()
        defer { closedir(listing) }
        return try Files.names(in: listing, path)
    }

    /// Replaces a file so that a crash leaves the old or the new content, whole: a new file beside it, fsync, rename,
    /// fsync of the directory.
    public func replaceAtomically(_ name: String, contents: [UInt8], mode: UInt32 = 0o600) throws(SystemError) {
        let temporary = "\(name).\(UUIDText.generate()).tmp"
        let new = try open(temporary, [.writeOnly, .create, .exclusive], mode: mode)
        do {
            try new.writeAll(contents)
            try new.synchronize()
            try rename(from: temporary, to: name)
        } catch {
            // The error above is what matters; a left-over file is only untidy.
            try? unlink(temporary)
            throw error
        }
        try synchronize()
    }

    // MARK: Names

    private func place(of name: String) -> String { "\(path)/\(name)" }

    private func check(_ name: String, _ operation: String) throws(SystemError) {
        guard !name.isEmpty, name != ".", name != "..", !name.utf8.contains(UInt8(ascii: "/")), !name.utf8.contains(0)
        else { throw SystemError(errno: EINVAL, operation: operation, subject: place(of: name)) }
    }

    @discardableResult
    private func run(_ operation: String, _ name: String, _ body: () -> Int32) throws(SystemError) -> Int32 {
        try check(name, operation)
        return try SystemCall.run(operation, place(of: name), body)
    }
}

import CLinux
import Glibc
import Synchronization

/// An open file descriptor, owned. It is closed by `close` or with the last reference.
///
/// Any thread may use it; who closes it while others are in a call on it must keep them away (`shutdown` first): the
/// kernel gives the number to the next file.
public final class Descriptor: Sendable {
    /// The number; valid until `close`.
    public let raw: Int32
    private let isOpen = Atomic<Bool>(true)

    /// Takes the descriptor over.
    public init(owning raw: Int32) {
        self.raw = raw
    }

    deinit { close() }

    /// `close(2)`, once; later calls do nothing. Errors are not reported: what must be durable was flushed before.
    public func close() {
        if isOpen.exchange(false, ordering: .acquiringAndReleasing) { _ = Glibc.close(raw) }
    }

    /// Gives the number up without closing it: the caller owns it now.
    public func release() -> Int32 {
        isOpen.store(false, ordering: .releasing)
        return raw
    }

    /// `open(2)` with O_CLOEXEC.
    /// - Parameter mode: permissions of a file that `.create` or `.temporary` makes, before the umask.
    public static func open(_ path: String, _ flags: OpenFlags, mode: UInt32 = 0o600) throws(SystemError) -> Descriptor
    {
        guard !flags.isDisjoint(with: [.create, .truncate]) else {
            return Descriptor(owning: try SystemCall.run("open", path: path) { cf_open(path, flags.rawValue, mode) })
        }
        var isThere = false
        return try FileChanges.perform { () throws(SystemError) in
            isThere = access(path, F_OK) == 0
            return Descriptor(owning: try SystemCall.run("open", path: path) { cf_open(path, flags.rawValue, mode) })
        } _: { file in
            FileChanges.key(file.raw).flatMap { key in
                isThere ? (flags.contains(.truncate) ? .resize(key, byteCount: 0) : nil) : .make(path: path, key)
            }
        }
    }

    /// `fcntl(2)` F_DUPFD_CLOEXEC: a second number for the same open file description.
    public func duplicate() throws(SystemError) -> Descriptor {
        Descriptor(owning: try SystemCall.run("dup") { cf_duplicate(raw, 3) })
    }

    /// `dup3(2)`: the number stands for the other's open file description from now on. Nobody is in a call on it.
    public func replace(by other: Descriptor) throws(SystemError) {
        _ = try SystemCall.run("dup3") { cf_replace(raw, other.raw) }
    }

    /// `fcntl(2)` O_NONBLOCK, on the open file description.
    public func setNonBlocking(_ isNonBlocking: Bool) throws(SystemError) {
        _ = try SystemCall.run("fcntl") { cf_set_nonblocking(raw, isNonBlocking) }
    }

    /// `memfd_create(2)`: an anonymous file in memory.
    public static func memoryFile(name: String) throws(SystemError) -> Descriptor {
        Descriptor(owning: try SystemCall.run("memfd_create", path: name) { cf_memfd_create(name) })
    }
}

/// Flags of `open(2)`. Exactly one of `readOnly`, `writeOnly`, `readWrite`; none means read-only.
public struct OpenFlags: OptionSet, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// O_RDONLY is no bit of its own.
    public static let readOnly = OpenFlags([])
    public static let writeOnly = OpenFlags(rawValue: O_WRONLY)
    public static let readWrite = OpenFlags(rawValue: O_RDWR)
    public static let create = OpenFlags(rawValue: O_CREAT)
    public static let exclusive = OpenFlags(rawValue: O_EXCL)
    public static let truncate = OpenFlags(rawValue: O_TRUNC)
    public static let append = OpenFlags(rawValue: O_APPEND)
    public static let nonBlocking = OpenFlags(rawValue: O_NONBLOCK)
    public static let noFollow = OpenFlags(rawValue: O_NOFOLLOW)
    public static let directory = OpenFlags(rawValue: O_DIRECTORY)
    /// O_DIRECT: past the page cache; buffers, offsets and lengths must be aligned.
    public static let direct = OpenFlags(rawValue: cf_O_DIRECT)
    /// O_TMPFILE: the path is a directory, the file has no name.
    public static let temporary = OpenFlags(rawValue: cf_O_TMPFILE)
    /// O_PATH: a place in the file system, not for I/O.
    public static let path = OpenFlags(rawValue: cf_O_PATH)
}

/// What a module contributes for one family of guest filesystems.
public protocol GuestFilesystemFactory: Sendable {
    /// The family as people call it: `fat`, `ext`, `xfs`. Unique in the agent.
    var typeName: String { get }

    /// Whether the volume holds one, by marks that are in no other filesystem and no partition table. Reads at most 64 KiB;
    /// a volume that is too short is none. Blocks; any thread.
    func recognises(_ volume: any GuestVolume) throws(ColdframeError) -> Bool

    /// Opens a volume that was recognised, or that the user calls one. Throws `.corrupt` for one that breaks the
    /// filesystem's rules, `.unsupported` for a feature that is not read, named. Blocks; any thread.
    func open(_ volume: any GuestVolume) throws(ColdframeError) -> any GuestFilesystem
}

/// A guest's filesystem, read-only.
///
/// **Threads.** All methods are synchronous, may block, and are called by several threads at once if `threadModel` is
/// `.parallel`, by one at a time if `.serialized`: whoever opens one asks `forAnyThread` for it.
///
/// **Hostile.** Whatever is on the volume was written by a guest. Each number is checked before its use; no method runs or
/// reads without a bound that a constant or the size of the answer gives, loops of the structure are errors (`.corrupt`);
/// what breaks a rule is an error that says what and where, never a crash, and leaves the rest readable.
///
/// **Memory.** What it holds between two calls is at most `memoryByteLimit`, whatever the volume; an answer is bounded by
/// what was asked for.
public protocol GuestFilesystem: AnyObject, Sendable {
    /// That of its factory.
    var typeName: String { get }
    var threadModel: ThreadModel { get }
    /// Bytes, at most 64 MiB: what it may keep of the volume.
    var memoryByteLimit: Int { get }
    /// Does no I/O.
    var information: GuestFilesystemInformation { get }
    /// The directory at its top.
    var root: GuestFileID { get }

    /// Throws `.invalidArgument` for an id that is none of this filesystem.
    func attributes(of file: GuestFileID) throws(ColdframeError) -> GuestFileAttributes
    /// The file of that name, by the filesystem's own rules on case; nil if there is none. `.` and `..` are nowhere: whoever
    /// walks a path knows where it came from.
    func lookUp(_ name: String, in directory: GuestFileID) throws(ColdframeError) -> GuestFileID?
    /// At most `limit` entries, at least 1, of a directory, beginning at `position`: 0, or the `next` of the page before.
    func list(
        _ directory: GuestFileID, from position: UInt64, limit: Int
    ) throws(ColdframeError) -> GuestDirectoryPage
    /// Fills the buffer from a regular file. Returns the bytes read: fewer than asked for only at the file's end.
    func read(
        _ file: GuestFileID, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(ColdframeError) -> Int
    /// What a symbolic link holds, at most 64 KiB. The default is for filesystems without links.
    func linkTarget(of file: GuestFileID) throws(ColdframeError) -> String
}

extension GuestFilesystem {
    public func linkTarget(of file: GuestFileID) throws(ColdframeError) -> String {
        throw ColdframeError(.invalidArgument, "Filesystems of the type '\(typeName)' have no symbolic links")
    }

    /// The filesystem for callers on any thread: itself, or one that lets them in one at a time.
    public var forAnyThread: any GuestFilesystem {
        switch threadModel {
        case .parallel: self
        case .serialized: SerializedFilesystem(self)
        }
    }
}

/// A file as its filesystem numbers it. The same as long as the volume does not change.
public struct GuestFileID: Sendable, Hashable {
    public let number: UInt64
    public init(_ number: UInt64) { self.number = number }
}

public enum GuestFileKind: String, Sendable {
    case regular, directory, link
    /// Devices, pipes, sockets: seen, and never opened.
    case special
}

public struct GuestFileAttributes: Sendable, Equatable {
    public var kind: GuestFileKind
    /// Of a regular file's content; 0 for others.
    public var byteCount: UInt64
    /// Seconds since 1970; nil where none is stored. Filesystems that store local time are read as if it were UTC: the guest's
    /// zone is not known.
    public var modificationSeconds: Int64?
    /// Permission bits as in `stat(2)`; nil where the filesystem has none.
    public var permissions: UInt32?

    public init(
        kind: GuestFileKind, byteCount: UInt64, modificationSeconds: Int64? = nil, permissions: UInt32? = nil
    ) {
        self.kind = kind
        self.byteCount = byteCount
        self.modificationSeconds = modificationSeconds
        self.permissions = permissions
    }
}

/// An entry of a directory.
public struct GuestDirectoryEntry: Sendable, Equatable {
    /// Not empty, not `.` nor `..`, without `/` and NUL: what the volume says otherwise is replaced by U+FFFD. It may hold
    /// anything else, such as escape sequences for a terminal. Two entries of a damaged directory may have one name.
    public var name: String
    public var file: GuestFileID
    public var kind: GuestFileKind

    public init(name: String, file: GuestFileID, kind: GuestFileKind) {
        self.name = name
        self.file = file
        self.kind = kind
    }

    /// A name from a volume as an entry may have it.
    public static func presentable(_ name: String) -> String {
        guard name != "", name != ".", name != ".." else { return name.isEmpty ? "\u{FFFD}" : name + "\u{FFFD}" }
        guard name.utf8.contains(where: { $0 == 0 || $0 == UInt8(ascii: "/") }) else { return name }
        return String(String.UnicodeScalarView(name.unicodeScalars.map { $0 == "/" || $0 == "\0" ? "\u{FFFD}" : $0 }))
    }
}

/// A part of a directory, in the filesystem's order.
public struct GuestDirectoryPage: Sendable {
    public var entries: [GuestDirectoryEntry]
    /// Where the next page begins; nil after the last entry. A page may be empty and have a next one.
    public var next: UInt64?

    public init(entries: [GuestDirectoryEntry], next: UInt64?) {
        self.entries = entries
        self.next = next
    }
}

/// What a filesystem says of itself.
public struct GuestFilesystemInformation: Sendable, Equatable {
    /// The member of the family: `FAT16`.
    public var variant: String
    public var label: String?
    /// Its identity as tools print it.
    public var identity: String?
    /// The size that it was made for, at most that of its volume.
    public var byteCount: UInt64

    public init(variant: String, label: String?, identity: String?, byteCount: UInt64) {
        self.variant = variant
        self.label = label
        self.identity = identity
        self.byteCount = byteCount
    }
}

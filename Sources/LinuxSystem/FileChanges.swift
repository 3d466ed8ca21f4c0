import Glibc
import Synchronization

/// Tells a test what changes files, in the order in which it happens, whichever part of the agent does it: so that it can
/// build the files as a crash would have left them.
///
/// Every call of this library that changes a regular file or a directory reports here after it succeeded. While somebody
/// watches, such calls run one at a time. Unwatched, it costs one relaxed atomic load.
public enum FileChanges {
    /// A file, whatever its name.
    public struct Key: Sendable, Hashable {
        public let device: UInt64
        public let inode: UInt64
        public init(device: UInt64, inode: UInt64) {
            self.device = device
            self.inode = inode
        }
    }

    public enum Change: Sendable {
        case write(Key, offset: UInt64, bytes: [UInt8])
        /// The range reads as zeros now, as far as the file reaches, which has that size.
        case zero(Key, offset: UInt64, byteCount: UInt64, fileByteCount: UInt64)
        case resize(Key, byteCount: UInt64)
        /// What was written to the file, or which names were made in the directory, is on stable storage.
        case synchronize(Key)
        case make(path: String, Key)
        case makeDirectory(path: String)
        case rename(from: String, to: String)
        case remove(path: String)
    }

    private static let isWatched = Atomic<Bool>(false)
    private static let watcher = Locked<Watcher?>(nil)

    /// A closure that is stored in a generic type by itself is wrapped once more each time it is read.
    private struct Watcher: Sendable {
        let hear: @Sendable (Change) -> Void
    }
    private static let turn = PlainMutex()

    /// From now on `watcher` hears of every change; nil ends it. One watcher at a time.
    public static func watch(_ watcher: (@Sendable (Change) -> Void)?) {
        let boxed = watcher.map { Watcher(hear: $0) }
        self.watcher.withLock { $0 = boxed }
        isWatched.store(watcher != nil, ordering: .sequentiallyConsistent)
    }

    /// Makes a call, and reports what `change` makes of its result; nil is no change.
    @inline(__always)
    static func perform<Result>(
        _ call: () throws(SystemError) -> Result, _ change: (Result) -> Change?
    ) throws(SystemError) -> Result {
        guard isWatched.load(ordering: .relaxed) else { return try call() }
        turn.lock()
        defer { turn.unlock() }
        let result = try call()
        if let change = change(result) { watcher.withLock { $0 }?.hear(change) }
        return result
    }

    /// The same for a call on an open file. Sockets and the like, on which a call may wait for somebody whose turn it is
    /// not, are left alone.
    @inline(__always)
    static func perform<Result>(
        on raw: Int32, _ call: () throws(SystemError) -> Result, _ change: (Key, Result) -> Change?
    ) throws(SystemError) -> Result {
        guard isWatched.load(ordering: .relaxed), let key = key(raw) else { return try call() }
        return try perform(call) { change(key, $0) }
    }

    /// The file behind a descriptor; nil for sockets and the like.
    static func key(_ raw: Int32) -> Key? {
        var status = stat()
        guard fstat(raw, &status) == 0, [S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT) else { return nil }
        return Key(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }
}

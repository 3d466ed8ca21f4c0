import LinuxSystem

/// Lets callers into a filesystem one at a time, so that a simple module is also a correct one.
final class SerializedFilesystem: GuestFilesystem {
    private let inner: any GuestFilesystem
    private let turn = PlainMutex()

    init(_ inner: any GuestFilesystem) { self.inner = inner }

    var typeName: String { inner.typeName }
    var threadModel: ThreadModel { .parallel }
    var memoryByteLimit: Int { inner.memoryByteLimit }
    var information: GuestFilesystemInformation { inner.information }
    var root: GuestFileID { inner.root }

    func attributes(of file: GuestFileID) throws(ColdframeError) -> GuestFileAttributes {
        turn.lock()
        defer { turn.unlock() }
        return try inner.attributes(of: file)
    }

    func lookUp(_ name: String, in directory: GuestFileID) throws(ColdframeError) -> GuestFileID? {
        turn.lock()
        defer { turn.unlock() }
        return try inner.lookUp(name, in: directory)
    }

    func list(
        _ directory: GuestFileID, from position: UInt64, limit: Int
    ) throws(ColdframeError) -> GuestDirectoryPage {
        turn.lock()
        defer { turn.unlock() }
        return try inner.list(directory, from: position, limit: limit)
    }

    func read(
        _ file: GuestFileID, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(ColdframeError) -> Int {
        turn.lock()
        defer { turn.unlock() }
        return try inner.read(file, into: buffer, at: offset)
    }

    func linkTarget(of file: GuestFileID) throws(ColdframeError) -> String {
        turn.lock()
        defer { turn.unlock() }
        return try inner.linkTarget(of: file)
    }
}

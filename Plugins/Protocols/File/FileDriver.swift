import ColdframeKit
import LinuxSystem
import Synchronization

/// A regular file or a block device as a node.
///
/// Any number of threads work at once: every request is one positioned system call on the thread that brought it. Only
/// what needs a block read, changed and written again under `cache.direct` is serialised, since two of those in one
/// block would lose one another's bytes.
///
/// As the child of a format the file grows: a write may reach behind `byteCount`, which follows.
final class FileDriver: BlockDriver, Resizable, FileBacked, ChangeStamped, ExtentSource, WritebackStarting {
    /// How a file was opened.
    struct Mode: Sendable {
        /// As it was opened; it may be switched later.
        var isReadOnly: Bool
        /// Held on the file; nil without locks.
        var locks: ImageLocks?
        /// Unit to which requests are aligned under `cache.direct`; nil goes through the page cache.
        var directUnit: Int?
        /// `cache.no-flush`: flushes are dropped.
        var dropsFlushes: Bool
        /// `discard: unmap`: space is given back.
        var unmaps: Bool
        var isBlockDevice: Bool
    }

    let driverName = "file"
    let threadModel = ThreadModel.parallel
    let fileIdentity: FileIdentity
    let mode: Mode
    let file: Descriptor
    /// The same file through the page cache, for those who map it or read it unaligned.
    private let bufferedFile: Descriptor
    let direct: DirectRequests?
    let size: Atomic<UInt64>
    let changes = UnflushedChanges()
    let access: FileAccess
    let discards = DiscardCounts()
    let cannotPunch = Atomic<Bool>(false)
    let cannotZero = Atomic<Bool>(false)

    init(file: Descriptor, bufferedFile: Descriptor, identity: FileIdentity, byteCount: UInt64, mode: Mode) {
        self.file = file
        self.bufferedFile = bufferedFile
        self.mode = mode
        fileIdentity = identity
        access = FileAccess(isReadOnly: mode.isReadOnly, locks: mode.locks)
        size = Atomic(byteCount)
        direct = mode.directUnit.map { DirectRequests(file: file, unit: $0) }
    }

    var byteCount: UInt64 { size.load(ordering: .acquiring) }
    var isReadOnly: Bool { access.isReadOnly }
    var displayFilename: String { fileIdentity.path }
    var descriptor: Int32 { bufferedFile.raw }

    func information() throws(ColdframeError) -> BlockInformation {
        do {
            return BlockInformation(allocatedByteCount: try file.status().allocatedByteCount)
        } catch {
            throw failed(error, "Could not query")
        }
    }

    func changeStamp() throws(ColdframeError) -> ChangeStamp? {
        if mode.isBlockDevice { return nil }
        do {
            let status = try file.status()
            return ChangeStamp(seconds: status.modificationSeconds, nanoseconds: status.modificationNanoseconds)
        } catch {
            throw failed(error, "Could not query")
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        do {
            let count =
                if let direct { try direct.read(into: buffer, at: offset) } else {
                    try file.preadFull(into: buffer, at: offset)
                }
            // The file may be shorter than the disk: somebody truncated it, or a format has not written that far.
            if count < buffer.count {
                UnsafeMutableRawBufferPointer(rebasing: buffer[count...]).initializeMemory(as: UInt8.self, repeating: 0)
            }
        } catch {
            throw failed(error, "Could not read \(buffer.count) bytes at \(offset) of")
        }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let end = try checkedEnd(offset, UInt64(buffer.count))
        do {
            defer { changes.note() }
            if let direct {
                try direct.write(buffer, at: offset, size: size)
            } else {
                try file.pwriteAll(buffer, at: offset)
                noteSize(atLeast: end)
            }
        } catch {
            throw failed(error, "Could not write \(buffer.count) bytes at \(offset) of")
        }
        if flags.contains(.forceUnitAccess) { try flush() }
    }

    func flush() throws(ColdframeError) {
        if mode.dropsFlushes || isReadOnly { return }
        do {
            try changes.flush { () throws(SystemError) in try file.synchronizeData() }
        } catch {
            throw failed(error.error, error.isEarlier ? "An earlier flush failed of" : "Could not flush")
        }
    }

    func startWriteback() { if !isReadOnly, direct == nil { file.startWriteback() } }

    func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        if mode.isBlockDevice {
            if byteCount > self.byteCount { throw ColdframeError(.unsupported, "Cannot grow device files") }
            return
        }
        do {
            defer { changes.note() }
            try file.truncate(toByteCount: byteCount)
        } catch {
            throw failed(error, "Failed to resize the file")
        }
        size.store(byteCount, ordering: .releasing)
    }

    func close() throws(ColdframeError) {
        defer {
            access.releaseLocks(of: file)
            bufferedFile.close()
            file.close()
        }
        try flush()
    }

    /// The size is now at least `end`.
    func noteSize(atLeast end: UInt64) {
        if mode.isBlockDevice { return }
        var old = size.load(ordering: .relaxed)
        while old < end {
            let (isDone, current) = size.weakCompareExchange(
                expected: old, desired: end, ordering: .acquiringAndReleasing)
            if isDone { return }
            old = current
        }
    }

    /// End of a range, which no file may have behind 2^63.
    func checkedEnd(_ offset: UInt64, _ byteCount: UInt64) throws(ColdframeError) -> UInt64 {
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        guard !overflow, end <= UInt64(Int64.max) else {
            throw failed(SystemError(errno: Errno.fileTooBig, operation: "pwrite"), "Could not write at \(offset) of")
        }
        return end
    }

    func failed(_ error: SystemError, _ words: String) -> ColdframeError {
        ColdframeError(error, "\(words) '\(fileIdentity.path)'")
    }
}

import CLinux
import Glibc

/// What `fallocate(2)` does to a range.
public enum FallocateMode: Sendable {
    /// Reserves space; the file grows if the range lies behind its end.
    case reserve
    /// Reserves space without growing the file.
    case reserveKeepingSize
    /// Gives the space back; the range reads as zeros. Never grows the file.
    case punchHole
    /// Makes the range read as zeros; the file grows if the range lies behind its end.
    case zeroRange
    /// The same without growing it.
    case zeroRangeKeepingSize

    var flags: Int32 {
        switch self {
        case .reserve: 0
        case .reserveKeepingSize: cf_FALLOC_KEEP_SIZE
        case .punchHole: cf_FALLOC_PUNCH_HOLE | cf_FALLOC_KEEP_SIZE
        case .zeroRange: cf_FALLOC_ZERO_RANGE
        case .zeroRangeKeepingSize: cf_FALLOC_ZERO_RANGE | cf_FALLOC_KEEP_SIZE
        }
    }
}

extension Descriptor {
    /// `ftruncate(2)`.
    public func truncate(toByteCount byteCount: UInt64) throws(SystemError) {
        let size = try SystemCall.offset(byteCount, "ftruncate")
        _ = try FileChanges.perform(on: raw) { () throws(SystemError) in
            try SystemCall.run("ftruncate") { ftruncate(raw, size) }
        } _: { key, _ in
            .resize(key, byteCount: byteCount)
        }
    }

    /// `fallocate(2)`. Nothing is done for 0 bytes.
    public func allocate(mode: FallocateMode, offset: UInt64, byteCount: UInt64) throws(SystemError) {
        if byteCount == 0 { return }
        let start = try SystemCall.offset(offset, "fallocate")
        let length = try SystemCall.offset(byteCount, "fallocate")
        _ = try FileChanges.perform(on: raw) { () throws(SystemError) in
            try SystemCall.run("fallocate") { cf_fallocate(raw, mode.flags, start, length) }
        } _: { key, _ in
            switch mode {
            case .reserve, .reserveKeepingSize: .resize(key, byteCount: (try? status().byteCount) ?? 0)
            case .punchHole, .zeroRange, .zeroRangeKeepingSize:
                .zero(
                    key, offset: offset, byteCount: byteCount, fileByteCount: (try? status().byteCount) ?? 0)
            }
        }
    }

    /// `ioctl(2)` FICLONERANGE: the range shares its blocks with the one at `sourceOffset` of `source` until one of them is
    /// written. EOPNOTSUPP, ENOTTY, EXDEV or EINVAL where the filesystem cannot, or cannot with these offsets. `byteCount`
    /// is not 0.
    public func shareRange(
        at offset: UInt64, with source: Int32, at sourceOffset: UInt64, byteCount: UInt64
    ) throws(SystemError) {
        _ = try FileChanges.perform(on: raw) { () throws(SystemError) in
            try SystemCall.run("ioctl") { cf_clone_range(raw, offset, source, sourceOffset, byteCount) }
        } _: { key, _ in
            var bytes = [UInt8](repeating: 0, count: Int(byteCount))
            _ = try? bytes.withUnsafeMutableBytes { try preadFull(into: $0, at: offset) }
            return .write(key, offset: offset, bytes: bytes)
        }
    }

    /// Has the kernel begin to write what the page cache has of the file (`sync_file_range(2)`). Nothing is promised, and no
    /// error told: that is `synchronizeData`'s.
    public func startWriteback() { _ = cf_start_writeback(raw) }

    /// The first byte at or after `offset` that holds data, or nil if there is none (`lseek(2)` SEEK_DATA).
    public func seekData(from offset: UInt64) throws(SystemError) -> UInt64? {
        try seek("lseek", from: offset, cf_seek_data)
    }

    /// The first byte at or after `offset` that lies in a hole; the end of the file counts as one. nil if `offset` lies
    /// behind the end (`lseek(2)` SEEK_HOLE).
    public func seekHole(from offset: UInt64) throws(SystemError) -> UInt64? {
        try seek("lseek", from: offset, cf_seek_hole)
    }

    private func seek(
        _ operation: String, from offset: UInt64, _ call: (Int32, off_t) -> off_t
    ) throws(SystemError) -> UInt64? {
        let start = try SystemCall.offset(offset, operation)
        do {
            return UInt64(try SystemCall.run(operation) { call(raw, start) })
        } catch {
            if error.errno == ENXIO { return nil }
            throw error
        }
    }

    /// `posix_fadvise(2)` WILLNEED: starts to read the range into the page cache. A hint; errors do not matter.
    public func adviseWillNeed(offset: UInt64, byteCount: UInt64) {
        guard let start = off_t(exactly: offset), let length = off_t(exactly: byteCount) else { return }
        _ = posix_fadvise(raw, start, length, POSIX_FADV_WILLNEED)
    }

    /// `ioctl(2)` FS_IOC_SETFLAGS with FS_NOCOW_FL: data written from now on is not copied on write. For a new file on a
    /// filesystem that copies; others fail with ENOTTY or EOPNOTSUPP.
    public func disableCopyOnWrite() throws(SystemError) {
        _ = try SystemCall.run("ioctl") { cf_disable_copy_on_write(raw) }
    }
}

import CLinux
import Glibc

/// What `stat(2)` tells.
public struct FileStatus: Sendable, Equatable {
    public let device: UInt64
    public let inode: UInt64
    /// Type and permissions.
    public let mode: UInt32
    /// Size of a regular file.
    public let byteCount: UInt64
    /// What it takes on its file system.
    public let allocatedByteCount: UInt64
    public let ownerID: UInt32
    public let groupID: UInt32
    /// Last change of the content.
    public let modificationSeconds: Int64
    public let modificationNanoseconds: UInt32
    /// The preferred unit of I/O.
    public let blockByteCount: UInt32

    init(_ status: stat) {
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        mode = status.st_mode
        byteCount = UInt64(clamping: status.st_size)
        allocatedByteCount = UInt64(clamping: status.st_blocks) &* 512
        ownerID = status.st_uid
        groupID = status.st_gid
        modificationSeconds = Int64(status.st_mtim.tv_sec)
        modificationNanoseconds = UInt32(clamping: status.st_mtim.tv_nsec)
        blockByteCount = UInt32(clamping: status.st_blksize)
    }

    /// Both are of one file, whatever its names.
    public func isSameFile(as other: FileStatus) -> Bool { device == other.device && inode == other.inode }

    public var isRegularFile: Bool { mode & S_IFMT == S_IFREG }
    public var isDirectory: Bool { mode & S_IFMT == S_IFDIR }
    public var isSocket: Bool { mode & S_IFMT == S_IFSOCK }
    public var isBlockDevice: Bool { mode & S_IFMT == S_IFBLK }
    public var isCharacterDevice: Bool { mode & S_IFMT == S_IFCHR }
    public var isSymbolicLink: Bool { mode & S_IFMT == S_IFLNK }
    public var isPipe: Bool { mode & S_IFMT == S_IFIFO }
    /// Permission bits.
    public var permissions: UInt32 { mode & 0o7777 }
}

extension Descriptor {
    /// `fstat(2)`.
    public func status() throws(SystemError) -> FileStatus {
        var status = stat()
        _ = try SystemCall.run("fstat") { fstat(raw, &status) }
        return FileStatus(status)
    }

    /// When the file was made, in nanoseconds since 1970 (`statx(2)` STATX_BTIME); nil where the filesystem does not say.
    /// With the inode's number it tells a file from a later one that got the same number.
    public func birthNanoseconds() throws(SystemError) -> UInt64? {
        var time: UInt64 = 0
        _ = try SystemCall.run("statx") { cf_birth_time(raw, &time) }
        return time == 0 ? nil : time
    }

    /// Size of a block device (`ioctl(2)` BLKGETSIZE64).
    public func blockDeviceByteCount() throws(SystemError) -> UInt64 {
        var size: UInt64 = 0
        _ = try SystemCall.run("ioctl") { cf_block_device_size(raw, &size) }
        return size
    }

    /// Logical sector of a block device (`ioctl(2)` BLKSSZGET): what direct I/O must be aligned to.
    public func blockDeviceSectorByteCount() throws(SystemError) -> UInt32 {
        var size: Int32 = 0
        _ = try SystemCall.run("ioctl") { cf_block_device_sector_size(raw, &size) }
        return UInt32(clamping: size)
    }

    /// The magic number of the file system (`fstatfs(2)`).
    public func fileSystemType() throws(SystemError) -> Int64 {
        var type: Int64 = 0
        _ = try SystemCall.run("fstatfs") { cf_filesystem_type(raw, &type) }
        return type
    }
}

import ColdframeKit
import LinuxSystem
import QAPI

/// What a file is to be opened as; does the blocking part of `blockdev-add`.
struct FileOpening: Sendable {
    private let path: String
    private let isReadOnly: Bool
    private let autoReadOnly: Bool
    private let isDirect: Bool
    private let dropsFlushes: Bool
    private let unmaps: Bool
    private let locks: ImageLocks?
    /// `locking: auto`: a filesystem without locks is no error.
    private let locksAreOptional: Bool

    /// Checks the options.
    init(
        _ options: BlockdevOptions, _ branch: BlockdevOptionsFile, isReadOnly: Bool, autoReadOnly: Bool
    ) throws(ColdframeError) {
        path = branch.filename
        self.isReadOnly = isReadOnly
        self.autoReadOnly = autoReadOnly
        isDirect = options.cache?.direct ?? false
        dropsFlushes = options.cache?.noFlush ?? false
        unmaps = options.discard == .unmap
        let isShared = options.forceShare ?? false
        locksAreOptional = branch.locking != .on
        locks = branch.locking == .off ? nil : isShared ? .sharingReader : isReadOnly ? .reader : .writer
        if isShared, !isReadOnly {
            throw ColdframeError(.invalidArgument, "force-share=on can only be used with read-only images")
        }
        if branch.prManager != nil {
            throw ColdframeError(.unsupported, "Option 'pr-manager' of '\(path)' is not supported: leave it out")
        }
        if branch.aio == .native, !isDirect {
            throw ColdframeError(
                .invalidArgument, "aio=native was specified, but it requires cache.direct=on, which was not specified.")
        }
    }

    func open() throws(ColdframeError) -> any BlockDriver {
        let before = try status()
        guard before.isRegularFile || before.isBlockDevice || before.isDirectory else {
            // Opening a pipe would wait for its other end.
            throw ColdframeError(.invalidArgument, "'file' driver requires '\(path)' to be a regular file")
        }
        let (file, opensReadOnly) = try openFile()
        let found: FileStatus
        let size: UInt64
        let birth: UInt64?
        do {
            found = try file.status()
            birth = try file.birthNanoseconds()
            guard found.isRegularFile || found.isBlockDevice else {
                throw ColdframeError(.invalidArgument, "'file' driver requires '\(path)' to be a regular file")
            }
            size = found.isBlockDevice ? try file.blockDeviceByteCount() : found.byteCount
        } catch let error as ColdframeError {
            throw error
        } catch {
            throw ColdframeError(wrapping: error).prefixed("Could not open '\(path)'")
        }
        let held = try takeLocks(file, opensReadOnly)
        let mode = FileDriver.Mode(
            isReadOnly: opensReadOnly, locks: held, directUnit: isDirect ? directUnit(file, found) : nil,
            dropsFlushes: dropsFlushes, unmaps: unmaps, isBlockDevice: found.isBlockDevice)
        return FileDriver(
            file: file, bufferedFile: isDirect ? try bufferedTwin(of: file) : file,
            identity: FileIdentity(
                device: found.device, inode: found.inode, path: path, birthNanoseconds: birth),
            byteCount: size, mode: mode)
    }

    private func status() throws(ColdframeError) -> FileStatus {
        do {
            return try Files.status(path)
        } catch {
            throw couldNotOpen(error)
        }
    }

    private func openFile() throws(ColdframeError) -> (file: Descriptor, isReadOnly: Bool) {
        let flags: OpenFlags = isDirect ? .direct : []
        do throws(SystemError) {
            if isReadOnly { return (try Descriptor.open(path, flags), true) }
            do throws(SystemError) {
                return (try Descriptor.open(path, [.readWrite, flags]), false)
            } catch {
                let isForbidden = [Errno.accessDenied, Errno.notPermitted, Errno.readOnlyFileSystem]
                guard autoReadOnly, isForbidden.contains(error.errno) else { throw error }
                return (try Descriptor.open(path, flags), true)
            }
        } catch {
            if isDirect, error.errno == Errno.invalid {
                throw ColdframeError(
                    .unsupported,
                    "Could not open '\(path)': filesystem does not support O_DIRECT; open it without cache.direct")
            }
            throw couldNotOpen(error)
        }
    }

    /// What is held afterwards; nil if nothing is.
    private func takeLocks(_ file: Descriptor, _ opensReadOnly: Bool) throws(ColdframeError) -> ImageLocks? {
        // An image that turned out to be read-only is locked as one.
        guard let locks = opensReadOnly && self.locks?.held.contains(.write) == true ? .reader : self.locks else {
            return nil
        }
        do {
            try locks.take(on: file, path: path)
            return locks
        } catch {
            let isMissing = [Errno.notSupported, Errno.notImplemented, Errno.invalid].contains(error.errno)
            guard locksAreOptional, isMissing else { throw error }
            return nil
        }
    }

    /// What direct I/O must be aligned to: a device says so; for files a page is enough everywhere.
    private func directUnit(_ file: Descriptor, _ status: FileStatus) -> Int {
        guard status.isBlockDevice, let sector = try? file.blockDeviceSectorByteCount(), sector >= 512,
            sector & (sector - 1) == 0
        else { return 4096 }
        return Int(max(sector, 512))
    }

    /// The same file, read through the page cache. By its descriptor, since the path may lead elsewhere by now.
    private func bufferedTwin(of file: Descriptor) throws(ColdframeError) -> Descriptor {
        do {
            return try Descriptor.open("/proc/self/fd/\(file.raw)", .readOnly)
        } catch {
            throw couldNotOpen(error)
        }
    }

    private func couldNotOpen(_ error: SystemError) -> ColdframeError {
        let code: ColdframeError.Code = error.errno == Errno.noEntry ? .notFound : .io
        return ColdframeError(code, "Could not open '\(path)': \(error.reason)", errno: error.errno)
    }
}

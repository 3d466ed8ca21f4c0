import ColdframeKit
import LinuxSystem
import QAPI

/// Makes a file (`blockdev-create` of driver `file`).
///
/// A file that exists is emptied, as QEMU does, but only once nobody uses it: the write lock is taken first. If it
/// fails, a file that it made is removed; one that existed stays, empty or partly filled.
struct FileCreation: Sendable {
    private let path: String
    private let byteCount: UInt64
    private let preallocation: PreallocMode
    private let avoidsCopyOnWrite: Bool

    init(_ options: BlockdevCreateOptionsFile) throws(ColdframeError) {
        path = options.filename
        byteCount = options.size
        preallocation = options.preallocation ?? .off
        avoidsCopyOnWrite = options.nocow ?? false
        guard preallocation != .metadata else {
            throw ColdframeError(
                .unsupported, "Unsupported preallocation mode 'metadata': a file has off, falloc and full")
        }
        guard byteCount <= UInt64(Int64.max) else {
            throw ColdframeError(
                .invalidArgument, "Could not create '\(path)': \(byteCount) bytes is more than a file can have")
        }
    }

    func run() throws(ColdframeError) {
        let (file, isNew) = try openFile()
        defer { ImageLocks.release(file) }
        do {
            try ImageLocks.writer.take(on: file, path: path)
            try fill(file)
        } catch {
            // What failed matters more than a left-over that cannot be removed.
            if isNew { try? Files.unlink(path) }
            throw error
        }
    }

    private func openFile() throws(ColdframeError) -> (Descriptor, isNew: Bool) {
        do throws(SystemError) {
            do throws(SystemError) {
                return (try Descriptor.open(path, [.readWrite, .create, .exclusive], mode: 0o644), true)
            } catch {
                guard error.errno == Errno.exists else { throw error }
                return (try Descriptor.open(path, [.readWrite, .create], mode: 0o644), false)
            }
        } catch {
            throw ColdframeError(.io, "Could not create '\(path)': \(error.reason)", errno: error.errno)
        }
    }

    private func fill(_ file: Descriptor) throws(ColdframeError) {
        do {
            try file.truncate(toByteCount: 0)
            // Only some filesystems have it; it is about speed, not content.
            if avoidsCopyOnWrite { try? file.disableCopyOnWrite() }
            switch preallocation {
            case .off, .metadata: break
            case .falloc: try file.allocate(mode: .reserve, offset: 0, byteCount: byteCount)
            case .full: try writeZeros(to: file)
            }
            try file.truncate(toByteCount: byteCount)
        } catch {
            let hint = error.errno == Errno.noSpace ? "; free space, or create it with preallocation=off" : ""
            throw ColdframeError(
                .io, "Could not resize '\(path)' to \(byteCount) bytes: \(error.reason)\(hint)", errno: error.errno)
        }
    }

    private func writeZeros(to file: Descriptor) throws(SystemError) {
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { piece.deallocate() }
        piece.initializeMemory(as: UInt8.self, repeating: 0)
        var done: UInt64 = 0
        while done < byteCount {
            let count = Int(min(byteCount - done, UInt64(piece.count)))
            try file.pwriteAll(UnsafeRawBufferPointer(rebasing: piece[..<count]), at: done)
            done += UInt64(count)
        }
        try file.synchronizeData()
    }
}

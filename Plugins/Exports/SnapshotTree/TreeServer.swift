import CFuse3
import ColdframeKit
import LinuxSystem

/// What the callbacks of one session work on: the published tree and the open files. Any thread.
///
/// Nothing here waits for the agent's actor: it publishes a tree and goes on, and an open that needs it is answered from
/// there, not by the worker.
final class TreeServer: Sendable {
    /// How long the kernel may trust names and attributes: it is told of every change.
    static let cacheSeconds = 365.0 * 86400

    let owner: TreeOwner
    /// `cache=none`: reads go past the page cache of the mount.
    let isDirect: Bool
    /// Tells nodes of this mount from those of an earlier one with the same numbers.
    let generation: UInt64
    let opens: OpenSnapshots
    let scratch = ScratchPool()
    private let published: Locked<Tree>

    init(tree: Tree, owner: TreeOwner, isDirect: Bool, generation: UInt64, lease: @escaping OpenSnapshots.LeaseSource) {
        published = Locked(tree)
        self.owner = owner
        self.isDirect = isDirect
        self.generation = generation
        opens = OpenSnapshots(lease: lease)
    }

    var tree: Tree { published.withLock { $0 } }

    /// Everybody who asks from now on sees `tree`. The kernel is told afterwards.
    func publish(_ tree: Tree) {
        published.withLock { $0 = tree }
    }

    /// Name, numbers and attributes as the kernel wants them.
    func entry(of node: TreeNode) -> fuse_entry_param {
        var entry = fuse_entry_param()
        entry.ino = node.inode
        entry.generation = generation
        entry.attr = node.attributes(owner: owner)
        entry.attr_timeout = Self.cacheSeconds
        entry.entry_timeout = Self.cacheSeconds
        return entry
    }

    /// "No such name" as an entry that the kernel may keep too.
    var absentEntry: fuse_entry_param {
        var entry = fuse_entry_param()
        entry.entry_timeout = Self.cacheSeconds
        return entry
    }

    /// Replies to a read of an open file.
    func read(_ handle: FileHandle, request: fuse_req_t?, offset: UInt64, count: Int) {
        let size = handle.node.byteCount
        let length = offset < size ? Int(min(UInt64(count), size - offset)) : 0
        guard length > 0 else {
            fuse_reply_buf(request, nil, 0)
            return
        }
        guard length <= Scratch.readByteCount else {
            fuse_reply_err(request, Errno.invalid)
            return
        }
        do {
            try reply(to: request, with: handle, offset: offset, length: length)
        } catch {
            // One line per open file: a copy of a broken image asks thousands of times.
            if handle.failures.add(1, ordering: .relaxed).oldValue == 0 {
                FUSELog.error("Read of \(handle.node.name) at \(offset) failed: \(error.message)")
            }
            fuse_reply_err(request, Errno.io)
        }
    }

    /// The range lies within the file and is not empty. On a throw the request is not yet answered.
    private func reply(
        to request: fuse_req_t?, with handle: FileHandle, offset: UInt64, length: Int
    ) throws(ColdframeError) {
        switch handle.node.content {
        case .text(let bytes):
            bytes.withUnsafeBytes { bytes in
                let start = bytes.baseAddress.map { $0 + Int(offset) }
                _ = fuse_reply_buf(request, start?.assumingMemoryBound(to: CChar.self), length)
            }
        case .disk:
            guard let disk = handle.snapshot?.disk else { throw ColdframeError(.io, "The file has no lease") }
            let scratch = self.scratch.take()
            defer { self.scratch.give(scratch) }
            try disk.reply(to: request, offset: offset, count: length, scratch: scratch)
        case .vmState:
            guard let state = handle.snapshot?.vmState, state.byteCount >= handle.node.byteCount else {
                throw ColdframeError(.corrupt, "The state is not as long as its snapshot says")
            }
            let scratch = self.scratch.take()
            defer { self.scratch.give(scratch) }
            let buffer = UnsafeMutableRawBufferPointer(rebasing: scratch.buffer[..<length])
            try state.read(into: buffer, at: offset)
            fuse_reply_buf(request, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), length)
        case .directory:
            fuse_reply_err(request, Errno.isDirectory)
        }
    }

    /// `SEEK_DATA` and `SEEK_HOLE`; the result of lseek(2) or a negated errno.
    func seek(_ handle: FileHandle, offset: UInt64, toData: Bool) -> Int64 {
        let size = handle.node.byteCount
        guard offset < size else { return -Int64(Errno.noData) }
        do {
            guard case .disk = handle.node.content, let disk = handle.snapshot?.disk else {
                return Int64(clamping: toData ? offset : size)
            }
            guard let found = try disk.seek(from: offset, toData: toData), found < size || !toData else {
                return -Int64(Errno.noData)
            }
            return Int64(clamping: min(found, size))
        } catch {
            FUSELog.error("Seek in \(handle.node.name) at \(offset) failed: \(error.message)")
            return -Int64(Errno.io)
        }
    }
}

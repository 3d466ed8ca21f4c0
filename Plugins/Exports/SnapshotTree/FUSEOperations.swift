import CFuse3
import LinuxSystem

// The callbacks of libfuse. They are plain functions, called on the session's workers; each answers its request once,
// except for an open that needs the agent, which is answered from there.

/// The table that libfuse copies when a session is made.
func makeFUSEOperations() -> fuse_lowlevel_ops {
    var operations = fuse_lowlevel_ops()
    operations.`init` = treeInit
    operations.lookup = treeLookup
    operations.forget = { request, _, _ in fuse_reply_none(request) }
    operations.forget_multi = { request, _, _ in fuse_reply_none(request) }
    operations.getattr = treeGetAttributes
    operations.opendir = treeOpenDirectory
    operations.readdir = { treeReadDirectory($0, $2, $3, $4, withAttributes: false) }
    operations.readdirplus = { treeReadDirectory($0, $2, $3, $4, withAttributes: true) }
    operations.releasedir = treeReleaseDirectory
    operations.open = treeOpen
    operations.read = treeRead
    operations.release = treeRelease
    operations.lseek = treeSeek
    operations.statfs = treeFileSystemStatus
    return operations
}

/// The server that the session was made with. It outlives the session.
private func server(of request: fuse_req_t?) -> TreeServer? {
    fuse_req_userdata(request).map { Unmanaged<TreeServer>.fromOpaque($0).takeUnretainedValue() }
}

private func treeInit(userData: UnsafeMutableRawPointer?, connection: UnsafeMutablePointer<fuse_conn_info>?) {
    guard let connection else { return }
    let wanted =
        FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO
        | FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_ASYNC_DIO
    connection.pointee.want = connection.pointee.capable & UInt32(bitPattern: wanted)
    // Also the number of pages of a read.
    connection.pointee.max_write = UInt32(Scratch.readByteCount)
    connection.pointee.max_readahead = UInt32(8 * Scratch.readByteCount)
    connection.pointee.max_background = 64
    connection.pointee.congestion_threshold = 48
}

private func treeLookup(request: fuse_req_t?, parent: fuse_ino_t, name: UnsafePointer<CChar>?) {
    guard let server = server(of: request), let name else { return _ = fuse_reply_err(request, Errno.io) }
    guard let directory = server.tree.nodes[UInt64(parent)] else { return _ = fuse_reply_err(request, Errno.stale) }
    var entry = directory.child(named: name).map(server.entry(of:)) ?? server.absentEntry
    fuse_reply_entry(request, &entry)
}

private func treeGetAttributes(
    request: fuse_req_t?, inode: fuse_ino_t, information: UnsafeMutablePointer<fuse_file_info>?
) {
    guard let server = server(of: request) else { return _ = fuse_reply_err(request, Errno.io) }
    guard let node = server.tree.nodes[UInt64(inode)] else { return _ = fuse_reply_err(request, Errno.stale) }
    var attributes = node.attributes(owner: server.owner)
    fuse_reply_attr(request, &attributes, TreeServer.cacheSeconds)
}

private func treeOpenDirectory(
    request: fuse_req_t?, inode: fuse_ino_t, information: UnsafeMutablePointer<fuse_file_info>?
) {
    guard let server = server(of: request), let information else { return _ = fuse_reply_err(request, Errno.io) }
    guard let node = server.tree.nodes[UInt64(inode)] else { return _ = fuse_reply_err(request, Errno.stale) }
    let handle = Unmanaged.passRetained(DirectoryHandle(node: node))
    information.pointee.fh = handle.bits
    // The kernel keeps the list until it is told that the directory has changed.
    information.pointee.cache_readdir = 1
    information.pointee.keep_cache = 1
    if fuse_reply_open(request, information) != 0 { handle.release() }
}

private func directory(_ information: UnsafeMutablePointer<fuse_file_info>?) -> Unmanaged<DirectoryHandle>? {
    // The number is one that `treeOpenDirectory` gave out and that has not been released yet.
    guard let bits = information?.pointee.fh else { return nil }
    return UnsafeRawPointer(bitPattern: UInt(bits)).map { Unmanaged.fromOpaque($0) }
}

private func treeReleaseDirectory(
    request: fuse_req_t?, inode: fuse_ino_t, information: UnsafeMutablePointer<fuse_file_info>?
) {
    directory(information)?.release()
    fuse_reply_err(request, 0)
}

private func treeReadDirectory(
    _ request: fuse_req_t?, _ size: Int, _ offset: off_t, _ information: UnsafeMutablePointer<fuse_file_info>?,
    withAttributes: Bool
) {
    guard let server = server(of: request), let node = directory(information)?._withUnsafeGuaranteedRef({ $0.node })
    else { return _ = fuse_reply_err(request, Errno.io) }
    let scratch = server.scratch.take()
    defer { server.scratch.give(scratch) }
    guard let base = scratch.buffer.baseAddress?.assumingMemoryBound(to: CChar.self) else { return }
    let room = min(size, scratch.buffer.count)
    let children = node.children
    var used = 0
    // Positions: 1 behind ".", 2 behind "..", then one per child.
    var position = max(0, Int(offset))
    while position < children.count + 2 {
        let next = off_t(position + 1)
        let left = room - used
        let need: Int
        if position < 2 {
            var attributes = stat()
            attributes.st_ino = ino_t(position == 0 ? node.inode : node.parentInode)
            attributes.st_mode = mode_t(S_IFDIR)
            let name = position == 0 ? "." : ".."
            if withAttributes {
                // An inode number of 0 in the entry: nothing is looked up for these two.
                var entry = fuse_entry_param()
                entry.attr = attributes
                need = fuse_add_direntry_plus(request, base + used, left, name, &entry, next)
            } else {
                need = fuse_add_direntry(request, base + used, left, name, &attributes, next)
            }
        } else {
            let child = children[position - 2]
            need = child.nameBytes.withUnsafeBufferPointer { name in
                if withAttributes {
                    var entry = server.entry(of: child)
                    return fuse_add_direntry_plus(request, base + used, left, name.baseAddress, &entry, next)
                }
                var attributes = child.attributes(owner: server.owner)
                return fuse_add_direntry(request, base + used, left, name.baseAddress, &attributes, next)
            }
        }
        if need > left { break }
        used += need
        position += 1
    }
    fuse_reply_buf(request, base, used)
}

private func treeOpen(
    request: fuse_req_t?, inode: fuse_ino_t, information: UnsafeMutablePointer<fuse_file_info>?
) {
    guard let server = server(of: request), let information else { return _ = fuse_reply_err(request, Errno.io) }
    guard let node = server.tree.nodes[UInt64(inode)] else { return _ = fuse_reply_err(request, Errno.stale) }
    var answer = information.pointee
    // Content never changes under an inode number: what is cached stays right.
    answer.keep_cache = 1
    answer.direct_io = server.isDirect ? 1 : 0
    answer.noflush = 1
    let pending = PendingOpen(node: node, request: request, information: answer)
    switch node.content {
    case .directory: pending.fail(Errno.isDirectory)
    case .text: server.opens.open(node, pending)
    case .disk(let key, _), .vmState(let key, _): server.opens.open(key, pending)
    }
}

private func treeRead(
    request: fuse_req_t?, inode: fuse_ino_t, size: Int, offset: off_t,
    information: UnsafeMutablePointer<fuse_file_info>?
) {
    guard let server = server(of: request), let bits = information?.pointee.fh, let handle = FileHandle.from(bits),
        offset >= 0
    else { return _ = fuse_reply_err(request, Errno.io) }
    // The kernel sends no release while a read on the handle is unanswered.
    handle._withUnsafeGuaranteedRef {
        server.read($0, request: request, offset: UInt64(offset), count: size)
    }
}

private func treeSeek(
    request: fuse_req_t?, inode: fuse_ino_t, offset: off_t, whence: Int32,
    information: UnsafeMutablePointer<fuse_file_info>?
) {
    guard let server = server(of: request), let bits = information?.pointee.fh, let handle = FileHandle.from(bits),
        offset >= 0
    else { return _ = fuse_reply_err(request, Errno.noData) }
    // SEEK_DATA and SEEK_HOLE: the kernel asks for no other.
    guard whence == 3 || whence == 4 else { return _ = fuse_reply_err(request, Errno.invalid) }
    let result = handle._withUnsafeGuaranteedRef { server.seek($0, offset: UInt64(offset), toData: whence == 3) }
    if result < 0 { fuse_reply_err(request, Int32(-result)) } else { fuse_reply_lseek(request, off_t(result)) }
}

private func treeRelease(
    request: fuse_req_t?, inode: fuse_ino_t, information: UnsafeMutablePointer<fuse_file_info>?
) {
    // Whoever closed does not wait for this answer; the lease ends first, so that it is gone when the answer is.
    if let server = server(of: request), let bits = information?.pointee.fh { server.opens.release(bits) }
    fuse_reply_err(request, 0)
}

private func treeFileSystemStatus(request: fuse_req_t?, inode: fuse_ino_t) {
    guard let server = server(of: request) else { return _ = fuse_reply_err(request, Errno.io) }
    let tree = server.tree
    var status = statvfs()
    status.f_bsize = 4096
    status.f_frsize = 4096
    status.f_blocks = fsblkcnt_t(tree.totalByteCount / 4096)
    status.f_files = fsfilcnt_t(tree.nodes.count)
    status.f_namemax = UInt(TreeName.maximumByteCount)
    fuse_reply_statfs(request, &status)
}

import CFuse3
import LinuxSystem

/// One file or directory of the tree. Immutable: a change of the catalogue makes new ones.
final class TreeNode: Sendable {
    enum Content: Sendable {
        /// Sorted by the bytes of their names.
        case directory([TreeNode])
        /// `info.json`.
        case text([UInt8])
        /// `disk.raw`, with its size in bytes.
        case disk(SnapshotKey, byteCount: UInt64)
        /// `vmstate.bin`, with its size in bytes.
        case vmState(SnapshotKey, byteCount: UInt64)
    }

    /// Never given to anything else while the export lives.
    let inode: UInt64
    let parentInode: UInt64
    let name: String
    /// The name as C wants it.
    let nameBytes: ContiguousArray<CChar>
    let content: Content
    /// Date of the snapshot; of the root, the last change.
    let date: TreeDate

    init(inode: UInt64, parentInode: UInt64, name: String, content: Content, date: TreeDate) {
        self.inode = inode
        self.parentInode = parentInode
        self.name = name
        nameBytes = ContiguousArray(name.utf8CString)
        self.content = content
        self.date = date
    }

    var children: [TreeNode] {
        if case .directory(let children) = content { return children }
        return []
    }

    var isDirectory: Bool {
        if case .directory = content { return true }
        return false
    }

    var byteCount: UInt64 {
        switch content {
        case .directory: 0
        case .text(let bytes): UInt64(bytes.count)
        case .disk(_, let byteCount), .vmState(_, let byteCount): byteCount
        }
    }

    /// The child of that name, by bisection: no allocation, however many tags there are.
    func child(named name: UnsafePointer<CChar>) -> TreeNode? {
        guard case .directory(let children) = content else { return nil }
        var low = 0
        var high = children.count
        while low < high {
            let middle = (low + high) / 2
            let order = children[middle].compareName(to: name)
            if order == 0 { return children[middle] }
            if order < 0 { low = middle + 1 } else { high = middle }
        }
        return nil
    }

    /// As `strcmp(3)` on unsigned bytes.
    private func compareName(to other: UnsafePointer<CChar>) -> Int {
        nameBytes.withUnsafeBufferPointer { own in
            var index = 0
            while true {
                let difference = Int(UInt8(bitPattern: own[index])) - Int(UInt8(bitPattern: other[index]))
                // Both end with a NUL, so that the first difference or the common end comes before either runs out.
                if difference != 0 || own[index] == 0 { return difference }
                index += 1
            }
        }
    }
}

/// Seconds and nanoseconds since 1970, UTC.
struct TreeDate: Sendable, Equatable {
    var seconds: Int64
    var nanoseconds: UInt32
}

/// Which snapshot of which node: what a lease is taken on. The date tells a later snapshot with the same id apart.
struct SnapshotKey: Sendable, Hashable {
    var nodeName: String
    var snapshotID: String
    var dateSeconds: UInt32
    var dateNanoseconds: UInt32
}

/// The user to whom everything in the tree belongs.
struct TreeOwner: Sendable {
    var userID: UInt32
    var groupID: UInt32
}

extension TreeNode {
    /// What `stat(2)` shows.
    func attributes(owner: TreeOwner) -> stat {
        var status = stat()
        status.st_ino = ino_t(inode)
        status.st_uid = owner.userID
        status.st_gid = owner.groupID
        status.st_size = off_t(clamping: byteCount)
        status.st_blksize = 4096
        status.st_mtim = timespec(tv_sec: Int(date.seconds), tv_nsec: Int(date.nanoseconds))
        status.st_ctim = status.st_mtim
        status.st_atim = status.st_mtim
        switch content {
        case .directory(let children):
            status.st_mode = mode_t(S_IFDIR) | 0o555
            status.st_nlink = nlink_t(2 + children.count { $0.isDirectory })
        case .text, .vmState:
            status.st_mode = mode_t(S_IFREG) | 0o444
            status.st_nlink = 1
            status.st_blocks = blkcnt_t(clamping: byteCount / 512 + 1)
        case .disk:
            status.st_mode = mode_t(S_IFREG) | 0o444
            status.st_nlink = 1
            // What is allocated is known only to whoever opens the image. A page less than everything makes cp and tar
            // ask for the holes (SEEK_DATA) instead of copying them.
            status.st_blocks = blkcnt_t(clamping: max(8, byteCount / 512) - 7)
        }
        return status
    }
}

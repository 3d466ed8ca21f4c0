import ColdframeKit
import Synchronization

/// A snapshot under a lease, shared by all files of the tree that are open on it.
final class OpenSnapshot: Sendable {
    let key: SnapshotKey
    let disk: DiskReader
    let vmState: (any VMStateReader)?
    private let lease: any SnapshotLease

    init(key: SnapshotKey, lease: any SnapshotLease) {
        self.key = key
        self.lease = lease
        disk = DiskReader(lease.disk, nodeName: key.nodeName)
        vmState = lease.vmState
    }

    /// Ends the lease. No read is in flight.
    func close() {
        disk.close()
        lease.release()
    }
}

/// One open file of the tree. The kernel holds it as the number `fh` from open to release.
final class FileHandle: Sendable {
    let node: TreeNode
    /// nil for files that need none.
    let snapshot: OpenSnapshot?
    /// Reads that failed so far; the first is logged.
    let failures = Atomic<Int>(0)

    init(node: TreeNode, snapshot: OpenSnapshot?) {
        self.node = node
        self.snapshot = snapshot
    }
}

/// One open directory: the list as it was at opendir, so that positions in it stay right.
final class DirectoryHandle: Sendable {
    let node: TreeNode
    init(node: TreeNode) { self.node = node }
}

import CFuse3
import LinuxSystem

/// Tells the kernel what has changed, on a thread of its own.
///
/// Such a notice takes the lock of a directory, which the kernel holds while a lookup in it waits for a worker: so no
/// worker may send one, and neither may the actor, which must not wait for workers.
final class KernelNotifier: Sendable {
    // The session outlives the thread; its notices may be sent from any thread.
    nonisolated(unsafe) private let session: OpaquePointer
    private let state = Locked(State())
    private let wakeUp = ConditionVariable()
    private let thread = Locked<SystemThread.Handle?>(nil)

    private struct State {
        var changes: [TreeChange] = []
        var isEnding = false
    }

    init(session: OpaquePointer) {
        self.session = session
    }

    func start() throws(SystemError) {
        let handle = try SystemThread.start(name: "cf-tree-notify") { self.run() }
        thread.withLock { $0 = handle }
    }

    /// Any thread; does not wait.
    func send(_ change: TreeChange) {
        state.withLock { $0.changes.append(change) }
        wakeUp.signal()
    }

    /// Sends no more and waits for the thread's end. After the mount is gone, or notices may still wait for a lock.
    func stop() {
        state.withLock { $0.isEnding = true }
        wakeUp.broadcast()
        thread.withLock { handle in
            defer { handle = nil }
            return handle
        }?.join()
    }

    private func run() {
        while true {
            wakeUp.wait { state.withLock { $0.isEnding || !$0.changes.isEmpty } }
            let changes: [TreeChange]? = state.withLock { state in
                if state.isEnding { return nil }
                defer { state.changes = [] }
                return state.changes
            }
            guard let changes else { return }
            for change in changes { tell(change) }
        }
    }

    /// Errors mean that the kernel does not know the thing, and then it has nothing to forget.
    private func tell(_ change: TreeChange) {
        for entry in change.removed {
            let length = entry.name.utf8.count
            let result = fuse_lowlevel_notify_delete(session, entry.parent, entry.inode, entry.name, length)
            // A directory that the kernel thinks is not empty: the name goes all the same.
            if result != 0, result != -Errno.noEntry {
                _ = fuse_lowlevel_notify_inval_entry(session, entry.parent, entry.name, length)
            }
        }
        for entry in change.added {
            _ = fuse_lowlevel_notify_inval_entry(session, entry.parent, entry.name, entry.name.utf8.count)
        }
        for inode in change.changedDirectories {
            _ = fuse_lowlevel_notify_inval_inode(session, inode, 0, 0)
        }
    }
}

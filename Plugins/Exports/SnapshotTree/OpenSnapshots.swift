import ColdframeKit
import LinuxSystem

/// The snapshots that somebody has open through one export: one lease each, from the first open to the last release.
final class OpenSnapshots: Sendable {
    /// Asks the agent for a lease; runs on the actor.
    typealias LeaseSource = @Sendable @AgentActor (SnapshotKey) async throws -> any SnapshotLease

    private enum Entry {
        case opening([PendingOpen])
        case open(OpenSnapshot, handleCount: Int)
    }

    private struct State {
        var entries: [SnapshotKey: Entry] = [:]
        /// Every handle that the kernel holds, to be freed if the mount ends before its files are closed.
        var handles: Set<UnsafeMutableRawPointer> = []
        /// Every open that is not yet answered; none may be once the session is gone.
        var pending: [ObjectIdentifier: PendingOpen] = [:]
        var isEnded = false
    }

    private let state = Locked(State())
    private let lease: LeaseSource

    init(lease: @escaping LeaseSource) {
        self.lease = lease
    }

    /// Opens are counted here; for tests and for the log at the end.
    var openCount: Int { state.withLock { $0.entries.count } }

    /// Answers `pending` now if the snapshot is open, or later.
    func open(_ key: SnapshotKey, _ pending: PendingOpen) {
        enum Step {
            case refuse, wait, ask
            case grant(OpenSnapshot)
        }
        let step: Step = state.withLock { state in
            if state.isEnded { return .refuse }
            state.pending[ObjectIdentifier(pending)] = pending
            switch state.entries[key] {
            case .open(let snapshot, let count):
                state.entries[key] = .open(snapshot, handleCount: count + 1)
                return .grant(snapshot)
            case .opening(let others):
                state.entries[key] = .opening(others + [pending])
                return .wait
            case nil:
                state.entries[key] = .opening([pending])
                return .ask
            }
        }
        switch step {
        case .refuse: pending.fail(Errno.notConnected)
        case .grant(let snapshot): grant(snapshot, to: pending)
        case .wait: pending.startTimer()
        case .ask:
            pending.startTimer()
            Task { @AgentActor in
                do {
                    self.finish(key, .success(try await self.lease(key)))
                } catch {
                    self.finish(key, .failure(ColdframeError(wrapping: error)))
                }
            }
        }
    }

    /// A file that needs no lease.
    func open(_ node: TreeNode, _ pending: PendingOpen) {
        give(FileHandle(node: node, snapshot: nil), to: pending)
    }

    /// The kernel has let go of a handle.
    func release(_ bits: UInt64) {
        guard let handle = FileHandle.from(bits) else { return }
        _ = state.withLock { $0.handles.remove(handle.toOpaque()) }
        let snapshot = handle.takeRetainedValue().snapshot
        if let snapshot { leave(snapshot) }
    }

    /// Answers what is waiting and grants nothing more.
    func refuseAll() {
        let waiting = state.withLock { state in
            state.isEnded = true
            defer { state.pending = [:] }
            return Array(state.pending.values)
        }
        for pending in waiting { pending.fail(Errno.notConnected) }
    }

    /// Frees handles and leases that the kernel will not release any more. After the last worker has ended.
    func closeAll() {
        let (handles, open) = state.withLock { state in
            defer {
                state.handles = []
                // What is still being opened is given back when the agent answers.
                state.entries = state.entries.filter { if case .opening = $0.value { true } else { false } }
            }
            let open = state.entries.values.compactMap { entry in
                if case .open(let snapshot, _) = entry { snapshot } else { nil }
            }
            return (state.handles.map { UInt64(UInt(bitPattern: $0)) }, open)
        }
        for handle in handles { FileHandle.from(handle)?.release() }
        for snapshot in open { snapshot.close() }
    }

    private func finish(_ key: SnapshotKey, _ result: Result<any SnapshotLease, ColdframeError>) {
        let opened = (try? result.get()).map { OpenSnapshot(key: key, lease: $0) }
        let (waiting, isEnded) = state.withLock { state in
            var waiting: [PendingOpen] = []
            if case .opening(let pending) = state.entries[key] { waiting = pending }
            if let opened, !state.isEnded {
                // One more than the waiting, for this function itself.
                state.entries[key] = .open(opened, handleCount: waiting.count + 1)
            } else {
                state.entries[key] = nil
            }
            return (waiting, state.isEnded)
        }
        guard let opened else {
            if case .failure(let error) = result {
                FUSELog.error("Cannot open snapshot '\(key.snapshotID)' of node '\(key.nodeName)': \(error.message)")
                for pending in waiting { pending.fail(error.openErrno) }
            }
            state.withLock { state in for pending in waiting { state.pending[ObjectIdentifier(pending)] = nil } }
            return
        }
        if isEnded { return opened.close() }
        for pending in waiting { grant(opened, to: pending) }
        leave(opened)
    }

    /// The handle is counted already.
    private func grant(_ snapshot: OpenSnapshot, to pending: PendingOpen) {
        give(FileHandle(node: pending.node, snapshot: snapshot), to: pending)
    }

    private func give(_ file: FileHandle, to pending: PendingOpen) {
        let handle = Unmanaged.passRetained(file)
        // Known before the kernel knows it: its release may come at once.
        state.withLock { _ = $0.handles.insert(handle.toOpaque()) }
        let isTaken = pending.succeed(with: handle)
        _ = state.withLock { $0.pending.removeValue(forKey: ObjectIdentifier(pending)) }
        if !isTaken { release(handle.bits) }
    }

    private func leave(_ snapshot: OpenSnapshot) {
        let isLast = state.withLock { state in
            guard case .open(let open, let count) = state.entries[snapshot.key], open === snapshot else { return false }
            state.entries[snapshot.key] = count > 1 ? .open(open, handleCount: count - 1) : nil
            return count == 1
        }
        if isLast { snapshot.close() }
    }
}

extension FileHandle {
    /// The reference behind a number that this process has given to the kernel.
    static func from(_ bits: UInt64) -> Unmanaged<FileHandle>? {
        UnsafeRawPointer(bitPattern: UInt(bits)).map { Unmanaged.fromOpaque($0) }
    }
}

extension ColdframeError {
    /// What open(2) says: something that names the cause where there is one, EIO otherwise.
    fileprivate var openErrno: Int32 {
        switch code {
        case .notFound: Errno.noEntry
        case .busy: Errno.busy
        case .permission: Errno.accessDenied
        case .timedOut: Errno.timedOut
        default: Errno.io
        }
    }
}

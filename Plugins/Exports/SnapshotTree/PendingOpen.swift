import CFuse3
import LinuxSystem

/// An open(2) that waits for the agent to grant a lease. It is answered once: with the file, an error, or when its time
/// is up. No worker waits for it.
final class PendingOpen: Sendable {
    /// An agent that has not answered by then is too busy; whoever opens would hang, even under kill -9.
    static let deadline = Duration.seconds(60)

    let node: TreeNode
    private let state: Locked<State>

    private struct State {
        // The request and its reply are used under the mutex, by whoever answers first.
        nonisolated(unsafe) var request: fuse_req_t?
        var information: fuse_file_info
        var timer: Task<Void, Never>?

        mutating func finish() {
            request = nil
            timer?.cancel()
            timer = nil
        }
    }

    init(node: TreeNode, request: fuse_req_t?, information: fuse_file_info) {
        self.node = node
        state = Locked(State(request: request, information: information))
    }

    func startTimer() {
        let timer = Task { [weak self] in
            do { try await Task.sleep(for: Self.deadline) } catch { return }
            self?.fail(Errno.timedOut)
        }
        state.withLock { $0.timer = timer }
    }

    /// Hands the file out. False if nobody wants it any more: the caller still owns it.
    func succeed(with handle: Unmanaged<FileHandle>) -> Bool {
        state.withLock { state in
            guard let request = state.request else { return false }
            state.finish()
            state.information.fh = handle.bits
            return fuse_reply_open(request, &state.information) == 0
        }
    }

    func fail(_ errno: Int32) {
        state.withLock { state in
            guard let request = state.request else { return }
            state.finish()
            fuse_reply_err(request, errno)
        }
    }
}

extension Unmanaged {
    /// The reference as the number that the kernel keeps for us.
    var bits: UInt64 { UInt64(UInt(bitPattern: toOpaque())) }
}

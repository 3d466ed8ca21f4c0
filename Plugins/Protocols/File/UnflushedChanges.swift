import LinuxSystem
import Synchronization

/// Tells whether a file has changed since it was flushed, so that a flush with nothing to do costs no system call, and so
/// that of many flushes at once the ones that wait are done by one.
///
/// What was written before the file was opened, by an agent that was killed say, counts as a change. Any thread.
final class UnflushedChanges: Sendable {
    struct Failure: Error {
        var error: SystemError
        /// Of a flush before this one.
        var isEarlier: Bool
    }

    private struct State {
        /// As many changes as a flush has covered.
        var flushedCount: UInt64 = 0
        /// The first flush that failed. The kernel may have dropped the pages that it could not write, and reports that
        /// once only: from then on no flush can promise anything.
        var failure: SystemError?
    }

    private let changeCount = Atomic<UInt64>(1)
    private let state = Locked(State())

    /// After a change, and before whoever asked for it hears that it is done: a flush that he asks for then has to cover it.
    func note() { changeCount.add(1, ordering: .releasing) }

    /// Runs `body`, which flushes, unless one that covered all changes has ended. One at a time: a flush of a file waits for
    /// another in the kernel as well.
    func flush(_ body: () throws(SystemError) -> Void) throws(Failure) {
        let wanted = changeCount.load(ordering: .acquiring)
        try state.withLock { (state) throws(Failure) in
            if let failure = state.failure { throw Failure(error: failure, isEarlier: true) }
            guard state.flushedCount < wanted else { return }
            let covered = changeCount.load(ordering: .acquiring)
            do throws(SystemError) { try body() } catch {
                state.failure = error
                throw Failure(error: error, isEarlier: false)
            }
            state.flushedCount = covered
        }
    }
}

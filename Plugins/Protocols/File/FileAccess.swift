import ColdframeKit
import LinuxSystem
import Synchronization

/// Whether a file is open for reading only, and the locks that go with it; both can be switched.
///
/// The file's number stays, so that whoever reads by it goes on. The locks stay on the open file description on which they
/// were taken first: two of one process would be in each other's way.
final class FileAccess: Sendable {
    private struct State: Sendable {
        var locks: ImageLocks?
        /// Keeps the locks once the file's number stands for another open file description.
        var lockFile: Descriptor?
    }
    private let state: Locked<State>
    private let readOnly: Atomic<Bool>

    init(isReadOnly: Bool, locks: ImageLocks?) {
        state = Locked(State(locks: locks))
        readOnly = Atomic(isReadOnly)
    }

    var isReadOnly: Bool { readOnly.load(ordering: .acquiring) }

    func releaseLocks(of file: Descriptor) {
        state.withLock { state in
            ImageLocks.release(state.lockFile ?? file)
            state.lockFile?.close()
        }
    }

    /// Nobody is in a call on `file`. On a throw everything is as before.
    func setReadOnly(_ isReadOnly: Bool, _ file: Descriptor, flags: OpenFlags, path: String) throws(ColdframeError) {
        guard isReadOnly != self.isReadOnly else { return }
        let other: Descriptor
        do {
            // By its descriptor, since the path may lead elsewhere by now.
            other = try Descriptor.open(
                "/proc/self/fd/\(file.raw)", isReadOnly ? flags : flags.union(.readWrite))
        } catch {
            throw ColdframeError(.io, "Could not reopen file: \(error.reason)", errno: error.errno)
        }
        try state.withLock { state throws(ColdframeError) in
            let wanted: ImageLocks? =
                state.locks.map { $0.refused.isEmpty ? $0 : isReadOnly ? .reader : .writer }
            do {
                let lockFile = try state.lockFile ?? file.duplicate()
                if let wanted, let held = state.locks { try wanted.replace(held, on: lockFile, path: path) }
                do throws(SystemError) { try file.replace(by: other) } catch {
                    if let wanted, let held = state.locks { try held.replace(wanted, on: lockFile, path: path) }
                    throw error
                }
                state.lockFile = lockFile
                state.locks = wanted
            } catch {
                throw ColdframeError(wrapping: error)
            }
        }
        readOnly.store(isReadOnly, ordering: .releasing)
    }
}

extension FileDriver: AccessSwitching {
    func setReadOnly(_ isReadOnly: Bool) throws(ColdframeError) {
        if isReadOnly { try flush() }
        try access.setReadOnly(
            isReadOnly, file, flags: mode.directUnit == nil ? [] : .direct, path: fileIdentity.path)
    }
}

import CChecksum
import ColdframeKit
import LinuxSystem

/// A state that is being written: its bytes behind a header that comes last.
final class StateWriter: VMStateStoreWriter {
    private struct Progress {
        var byteCount: UInt64 = 0
        var checksum: UInt32 = 0
    }
    private let file: Descriptor
    private let label: VMStateLabel
    private let store: DirectoryStore
    private let progress = Locked(Progress())

    init(_ file: Descriptor, _ label: VMStateLabel, _ store: DirectoryStore) {
        self.file = file
        self.label = label
        self.store = store
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws(ColdframeError) {
        let start = progress.withLock { $0.byteCount }
        do { try file.pwriteAll(bytes, at: UInt64(StateHeader.byteCount) + start) } catch {
            throw ColdframeError(error, "Could not write the state of set \(label.setID) ('\(label.tag)')")
        }
        let checksum = cf_crc32c(progress.withLock { $0.checksum }, bytes.baseAddress, bytes.count)
        progress.withLock { $0 = Progress(byteCount: start + UInt64(bytes.count), checksum: checksum) }
    }

    func commit(guestClockNanoseconds: UInt64) throws(ColdframeError) -> StoredVMState {
        let done = progress.withLock { $0 }
        let state = StoredVMState(
            label: label, byteCount: done.byteCount, checksum: done.checksum,
            guestClockNanoseconds: guestClockNanoseconds)
        do {
            try StateHeader.bytes(of: state).withBytes { (bytes) throws(SystemError) in try file.pwriteAll(bytes, at: 0)
            }
            // All of it is there before the name says so.
            try file.synchronize()
        } catch { throw ColdframeError(error, "Could not commit the state of set \(label.setID) ('\(label.tag)')") }
        try store.finish(file, label)
        return state
    }

    func abandon() throws(ColdframeError) {
        try store.abandon(file, label)
        file.close()
    }
}

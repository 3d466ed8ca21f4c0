import ColdframeKit
import LinuxSystem
import Synchronization

/// Knows whether the raw file has changed since it was flushed last, so that a snapshot of a disk at rest waits for one
/// flush, that of the sidecar, and not for two. Any thread.
final class RawDurability: Sendable {
    /// Counts changes that have been made; a flush covers those that were counted before it began.
    private let changeCount = Atomic<UInt64>(1)
    private let flushed = Locked(Flushed())

    private struct Flushed {
        /// What was written before the image was opened is not known to be flushed.
        var changeCount: UInt64 = 0
        /// The graph may put another node in the file's place.
        var body: ObjectIdentifier?
    }

    /// After each change, also one that failed: a part of it may be there.
    func noteChange() { changeCount.add(1, ordering: .acquiringAndReleasing) }

    func flush(_ raw: BlockNode) throws(ColdframeError) {
        let count = changeCount.load(ordering: .acquiring)
        let body = ObjectIdentifier(raw.body)
        try raw.direct.flush()
        flushed.withLock { if $0.changeCount <= count { $0 = Flushed(changeCount: count, body: body) } }
    }

    /// The same, unless nothing has changed since. No request is in flight.
    func flushIfChanged(_ raw: BlockNode) throws(ColdframeError) {
        let count = changeCount.load(ordering: .acquiring)
        let body = ObjectIdentifier(raw.body)
        if flushed.withLock({ $0.changeCount == count && $0.body == body }) { return }
        try flush(raw)
    }
}

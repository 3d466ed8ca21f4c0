import ColdframeKit
import Synchronization

/// What becomes of an image that is found damaged while it is open.
///
/// A change that met the damage is refused, the image gets its corrupt bit (version 3), and takes no more changes; reads
/// go on. A read that meets damage is reported and changes nothing. Any thread.
final class Corruption: Sendable {
    private let store: ClusterStore
    private let report: @Sendable (ImageCorruption) -> Void
    private let hasBeenReported = Atomic<Bool>(false)
    private let isFatal = Atomic<Bool>(false)

    init(store: ClusterStore, report: @escaping @Sendable (ImageCorruption) -> Void) {
        self.store = store
        self.report = report
    }

    /// The image takes no more changes.
    var forbidsChanges: Bool { isFatal.load(ordering: .acquiring) }

    /// Takes note of an error of a read.
    func noticeReading(_ error: ColdframeError) {
        guard error.code == .corrupt, !hasBeenReported.exchange(true, ordering: .acquiringAndReleasing) else { return }
        report(ImageCorruption(message: error.message, isFatal: false))
    }

    /// Takes note of an error of a change, and returns what its caller gets to see.
    func noticeChanging(_ error: ColdframeError) -> ColdframeError {
        guard error.code == .corrupt else { return error }
        if !isFatal.exchange(true, ordering: .acquiringAndReleasing) {
            if store.geometry.version >= 3 {
                // An error here leaves the bit out; the node is read-only all the same.
                try? store.updateHeader { $0.incompatible.insert(.corrupt) }
                try? store.file.flush()
            }
            report(ImageCorruption(message: error.message, isFatal: true))
        }
        return ColdframeError(
            .corrupt,
            "\(error.message); image is marked as corrupt and read-only: repair it with 'coldframe image check'",
            errno: error.errno)
    }
}

import ColdframeKit

/// Gives back the memory of tables that nobody has needed for a while (`cache-clean-interval`).
///
/// The clock is the cooperative runtime's, and the task holds the image weakly: it ends with it, at the next tick.
enum CacheCleaning {
    static func start(_ driver: Qcow2Driver, everySeconds seconds: UInt64) {
        guard seconds > 0 else { return }
        Task.detached(priority: .background) { [weak driver] in
            while true {
                try? await Task.sleep(for: .seconds(seconds))
                guard let driver else { return }
                driver.dropUnusedMetadata()
            }
        }
    }
}

extension Qcow2Driver {
    /// Drops what has not been looked at since the last call from both caches. Nothing in them is dirty.
    func dropUnusedMetadata() {
        map.state.withLock { $0.cache.dropUnused() }
        store.state.withLock { $0.refcounts.dropUnused() }
    }

    /// Bytes that both caches hold.
    var cachedMetadataByteCount: Int {
        map.state.withLock { $0.cache.byteCount } + store.state.withLock { $0.refcounts.cachedByteCount }
    }
}

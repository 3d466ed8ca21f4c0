import LinuxSystem
import Synchronization

/// A dirty bitmap of one node: which parts of its disk were written since the bitmap was made or cleared.
///
/// Every write path of the node marks it, after the write, whether that went well or not. Any thread; its lock is never
/// held across I/O. What state it is in (busy, recording, …) is decided on the agent's actor.
public final class DirtyBitmap: Sendable {
    /// Longest name in bytes, as in QEMU.
    public static let nameByteCountLimit = 1023

    /// What others may do with the bitmap.
    public struct State: Sendable {
        /// nil for one that a job uses for itself.
        public var name: String?
        /// Writes are noted.
        public var isRecording = true
        /// A job or an export uses it.
        public var isBusy = false
        /// Stored in the image when that is closed.
        public var isPersistent = false
        /// The image was not closed in order: the bits cannot be trusted.
        public var isInconsistent = false
        /// The image is read-only: what is stored in it cannot be changed.
        public var isReadOnly = false
        /// Takes the writes while a job works on the bits of this one.
        public var successor: DirtyBitmap?

        public init(name: String?) { self.name = name }
    }

    private struct Content: Sendable {
        var bits: DirtyBits
        var state: State
    }
    private let content: Locked<Content>
    /// Bytes of disk that one bit stands for.
    public let granularity: UInt32

    public init(name: String?, granularity: UInt32, diskByteCount: UInt64) {
        self.granularity = granularity
        content = Locked(
            Content(
                bits: DirtyBits(diskByteCount: diskByteCount, granularity: granularity), state: State(name: name)))
    }

    /// One that an image has stored.
    public init(bits: DirtyBits, state: State) {
        granularity = bits.granularity
        content = Locked(Content(bits: bits, state: state))
    }

    public var state: State { content.withLock { $0.state } }
    public var name: String? { content.withLock { $0.state.name } }
    public func update(_ change: (inout State) -> Void) { content.withLock { change(&$0.state) } }

    // MARK: Bits

    /// A write happened: called by the node on its write paths.
    public func noteWrite(at offset: UInt64, byteCount: UInt64) {
        content.withLock { content in
            if content.state.isRecording { content.bits.set(at: offset, byteCount: byteCount) }
        }
    }

    /// A copy of the bits.
    public var bits: DirtyBits { content.withLock { $0.bits } }
    /// Looks at the bits under the lock, without a copy.
    public func withBits<T>(_ body: (borrowing DirtyBits) -> T) -> T { content.withLock { body($0.bits) } }
    /// Changes the bits, whether the bitmap is recording or not.
    public func updateBits<T>(_ body: (inout DirtyBits) -> T) -> T { content.withLock { body(&$0.bits) } }

    /// Dirty bytes, in whole granules.
    public var dirtyByteCount: UInt64 { withBits { $0.setCount * UInt64(granularity) } }
    public var diskByteCount: UInt64 { withBits { $0.diskByteCount } }

    /// Clears all bits and returns what was set.
    @discardableResult
    public func clear() -> DirtyBits {
        updateBits { bits in
            let old = bits
            bits = DirtyBits(diskByteCount: old.diskByteCount, granularity: granularity)
            return old
        }
    }

    /// Marks the whole disk.
    public func setAll() {
        updateBits { $0.set(at: 0, byteCount: .max) }
    }

    /// Replaces the bits by those that `clear` or `bits` returned.
    public func restore(_ bits: DirtyBits) { updateBits { $0 = bits } }
}

/// The bitmaps of one node. Any thread.
public final class NodeBitmaps: Sendable {
    private let bitmaps = Locked<[DirtyBitmap]>([])
    private let count = Atomic<Int>(0)

    public init() {}

    /// Newest first, those without a name among them.
    public var all: [DirtyBitmap] { bitmaps.withLock { $0 } }

    public func find(_ name: String) -> DirtyBitmap? { all.first { $0.name == name } }

    /// Writes that come from now on are noted in it.
    public func insert(_ bitmap: DirtyBitmap) {
        bitmaps.withLock { bitmaps in
            bitmaps.insert(bitmap, at: 0)
            count.store(bitmaps.count, ordering: .releasing)
        }
    }

    public func remove(_ bitmap: DirtyBitmap) {
        bitmaps.withLock { bitmaps in
            bitmaps.removeAll { $0 === bitmap }
            count.store(bitmaps.count, ordering: .releasing)
        }
    }

    /// The disk has another size.
    public func resize(toDiskByteCount byteCount: UInt64) {
        for bitmap in all { bitmap.updateBits { $0.resize(toDiskByteCount: byteCount) } }
    }

    /// Called on every write path. Costs one load where there is no bitmap.
    @inline(__always)
    func noteWrite(at offset: UInt64, byteCount: UInt64) {
        guard count.load(ordering: .acquiring) > 0 else { return }
        note(offset, byteCount)
    }

    private func note(_ offset: UInt64, _ byteCount: UInt64) {
        bitmaps.withLock { bitmaps in
            for bitmap in bitmaps { bitmap.noteWrite(at: offset, byteCount: byteCount) }
        }
    }
}

import ColdframeKit
import LinuxSystem

/// Gives blocks of the disk a place in the file, one at a time.
///
/// Order: the header's count of blocks covers the new one, and is on stable storage (other programs take the count for the
/// next free block, and would give it out twice; it is raised ahead, by `reservedCount` blocks with one flush); the new
/// block is zeros; then its entry is written. Only when that has returned does the caller write data there. So a crash
/// anywhere leaves zeros, as before, or the data.
final class BlockAllocation: Sendable {
    private let image: VdiImage
    private let map: BlockMap
    private let state: Locked<State>
    private let turn = PlainMutex()

    private struct State: Sendable {
        var used: BlockSet
        /// The header's count.
        var recordedCount: UInt32
        /// What a failed attempt has taken: the file may name it already, so nobody else gets it.
        var taken: [Int: UInt32] = [:]
    }

    private static let reservedCount: UInt32 = 64

    /// Throws if the image must not be written.
    init(_ image: VdiImage, _ map: BlockMap) throws(ColdframeError) {
        self.image = image
        self.map = map
        state = Locked(State(used: try image.usedBlocks(), recordedCount: image.header.allocatedCount))
    }

    /// Returns when the block has a place in the file.
    func allocate(_ block: Int) throws(ColdframeError) {
        try turn.withLock { () throws(ColdframeError) in
            guard !VdiImage.isAllocated(map.run(from: block, limit: 1).entry) else { return }
            let place = try take(block)
            try record(count: place + 1)
            try clear(place)
            try image.file.direct.writeNumber(place, at: image.header.mapOffset + 4 * UInt64(block))
            map.set(block, to: place)
            state.withLock { $0.taken[block] = nil }
        }
    }

    private func take(_ block: Int) throws(ColdframeError) -> UInt32 {
        let place = state.withLock { state -> UInt32? in
            if let place = state.taken[block] { return place }
            state.taken[block] = state.used.takeLowest()
            return state.taken[block]
        }
        // There are as many blocks in the file as in the disk, and no two share one.
        guard let place else { throw ColdframeError(.io, "The image has no free block", errno: 28) }
        return place
    }

    /// Makes the header's count at least `count`, durably.
    private func record(count: UInt32) throws(ColdframeError) {
        guard count > state.withLock({ $0.recordedCount }) else { return }
        let wanted = min(image.header.blockCount, count + Self.reservedCount)
        try image.file.direct.writeNumber(wanted, at: VdiHeader.allocatedCountOffset)
        try image.file.direct.flush()
        state.withLock { $0.recordedCount = wanted }
    }

    /// Makes a block of the file zeros.
    private func clear(_ place: UInt32) throws(ColdframeError) {
        let start = image.offset(ofBlock: place)
        let end = image.offset(ofBlock: place + 1)
        let size = image.file.byteCount
        if end > size {
            guard let driver = image.file.driver as? any Growable else {
                throw ColdframeError(
                    .unsupported,
                    "The image cannot grow: driver '\(image.file.driver.driverName)' has a fixed size", errno: 28)
            }
            try driver.grow(toByteCount: end)
        }
        guard start < size else { return }
        // Left behind by a crash. It must not come back after the entry.
        try image.file.direct.writeZeroes(at: start, byteCount: min(end, size) - start)
        try image.file.direct.flush()
    }

    /// Makes the header's count exact. Everything else is in the file already.
    func finish() throws(ColdframeError) {
        try turn.withLock { () throws(ColdframeError) in
            let count = state.withLock { $0.recordedCount == $0.used.end ? nil : $0.used.end }
            guard let count else { return }
            // A count that is too low may not be durable before the last entries, nor one that is too high matter.
            try image.file.direct.flush()
            try image.file.direct.writeNumber(count, at: VdiHeader.allocatedCountOffset)
            state.withLock { $0.recordedCount = count }
        }
    }
}

extension DirectIO {
    fileprivate func writeNumber(_ value: UInt32, at offset: UInt64) throws(ColdframeError) {
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(value)
        try bytes.withBytes { (buffer) throws(ColdframeError) in try write(buffer, at: offset) }
    }
}

import ColdframeKit
import LinuxSystem

/// A disk in memory with clusters of 64 KiB that counts what reaches it and whose flush can be held.
final class MemoryDisk: BlockDriver {
    static let clusterByteCount = 64 << 10

    let driverName = "memory"
    let byteCount: UInt64
    let isReadOnly: Bool
    let threadModel = ThreadModel.parallel
    let displayFilename = "memory"

    struct Counts: Equatable {
        var reads = 0
        var writes = 0
        var forcedWrites = 0
        var flushes = 0
        var discards = 0
        var zeroings: [WriteFlags.RawValue] = []
    }
    private struct State {
        var clusters: [UInt64: [UInt8]] = [:]
        var counts = Counts()
        var failure: Int32?
        var isFlushHeld = false
    }
    private let state = Locked(State())
    private let changed = ConditionVariable()

    init(byteCount: UInt64, isReadOnly: Bool = false) {
        self.byteCount = byteCount
        self.isReadOnly = isReadOnly
    }

    var counts: Counts { state.withLock { $0.counts } }

    /// Every later request fails with this errno; nil ends it.
    func fail(errno: Int32?) { state.withLock { $0.failure = errno } }

    /// Flushes block until they are released.
    func holdFlush(_ isHeld: Bool) {
        state.withLock { $0.isFlushHeld = isHeld }
        changed.broadcast()
    }

    var clusterByteCount: UInt32? { UInt32(Self.clusterByteCount) }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try begin { $0.reads += 1 }
        forEachPiece(offset, UInt64(buffer.count)) { cluster, start, piece, done in
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + piece])
            state.withLock { state in
                if let bytes = state.clusters[cluster] {
                    target.copyBytes(from: bytes[start..<start + piece])
                } else {
                    target.initializeMemory(as: UInt8.self, repeating: 0)
                }
            }
        }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try begin {
            $0.writes += 1
            if flags.contains(.forceUnitAccess) { $0.forcedWrites += 1 }
        }
        forEachPiece(offset, UInt64(buffer.count)) { cluster, start, piece, done in
            state.withLock { state in
                state.clusters[cluster, default: Array(repeating: 0, count: Self.clusterByteCount)]
                    .replaceSubrange(start..<start + piece, with: buffer[done..<done + piece])
            }
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try begin { $0.zeroings.append(flags.rawValue) }
        zero(offset, byteCount, drops: flags.contains(.mayUnmap))
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try begin { $0.discards += 1 }
        zero(offset, byteCount, drops: true)
    }

    func flush() throws(ColdframeError) {
        try begin { $0.flushes += 1 }
        changed.wait { self.state.withLock { !$0.isFlushHeld } }
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try begin { _ in }
        var extents: [Extent] = []
        forEachPiece(offset, byteCount) { cluster, start, piece, done in
            let kind: Extent.Kind = state.withLock { $0.clusters[cluster] } == nil ? .zero(allocated: false) : .opaque
            let position = offset + UInt64(done)
            // Behind the limit nothing is adjacent any more.
            guard (extents.last?.end ?? offset) == position else { return }
            if extents.last?.kind == kind {
                extents[extents.count - 1].byteCount += UInt64(piece)
            } else if extents.count < limit {
                extents.append(Extent(offset: position, byteCount: UInt64(piece), kind: kind))
            }
        }
        return extents
    }

    func close() throws(ColdframeError) {}

    private func begin(_ count: (inout Counts) -> Void) throws(ColdframeError) {
        let failure = state.withLock { state in
            count(&state.counts)
            return state.failure
        }
        if let failure { throw ColdframeError(.io, "The disk was told to fail", errno: failure) }
    }

    private func zero(_ offset: UInt64, _ byteCount: UInt64, drops: Bool) {
        forEachPiece(offset, byteCount) { cluster, start, piece, _ in
            state.withLock { state in
                if piece == Self.clusterByteCount, drops {
                    state.clusters[cluster] = nil
                } else if let bytes = state.clusters[cluster] {
                    var bytes = bytes
                    bytes.replaceSubrange(start..<start + piece, with: repeatElement(0, count: piece))
                    state.clusters[cluster] = bytes
                }
            }
        }
    }

    private func forEachPiece(
        _ offset: UInt64, _ byteCount: UInt64,
        _ body: (_ cluster: UInt64, _ start: Int, _ piece: Int, _ done: Int) -> Void
    ) {
        let size = UInt64(Self.clusterByteCount)
        var done: UInt64 = 0
        while done < byteCount {
            let start = (offset + done) % size
            let piece = min(size - start, byteCount - done)
            body((offset + done) / size, Int(start), Int(piece), Int(done))
            done += piece
        }
    }
}

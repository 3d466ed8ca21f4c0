import ColdframeKit
import LinuxSystem

/// The parts of a disk that may hold something, given out in order to the threads that work on them.
///
/// One thread at a time looks ahead, so that each table is read once however many threads there are, and nobody has holes
/// for a share. Any thread.
final class DataPieces: Sendable {
    private let source: BlockNode
    private let byteCount: UInt64
    private let unitByteCount: UInt64
    private let limit: UInt64
    private let state = Locked(State())

    private struct State {
        /// All before it has been looked at.
        var position: UInt64 = 0
        /// What has not been given out, the first one last.
        var found: [Range<UInt64>] = []
        /// All before it has been given out, or is a hole.
        var end: UInt64 = 0
    }

    /// How far is looked ahead at once: the first pieces are wanted soon.
    private static let window: UInt64 = 1 << 30
    private static let extentLimit = 256

    /// Pieces begin and end at multiples of `unitByteCount` or with the disk, and have `limit` bytes at most, a multiple of it.
    init(of source: BlockNode, unitByteCount: UInt64, limit: UInt64) {
        self.source = source
        self.unitByteCount = unitByteCount
        self.limit = limit
        byteCount = source.byteCount
    }

    /// The next piece; nil when there is none.
    func next() throws(ColdframeError) -> ImageWork.Piece? {
        try state.withLock { (state) throws(ColdframeError) in
            while true {
                if let range = state.found.popLast() {
                    // An extent may end within the unit that the one before it has taken.
                    let start = max(state.end, range.lowerBound / unitByteCount * unitByteCount)
                    let wanted = min(
                        byteCount, (range.upperBound + unitByteCount - 1) / unitByteCount * unitByteCount)
                    guard start < wanted else { continue }
                    let end = min(wanted, (start / limit + 1) * limit)
                    if end < range.upperBound { state.found.append(end..<range.upperBound) }
                    defer { state.end = end }
                    return ImageWork.Piece(range: start..<end, coveredByteCount: end - state.end)
                }
                guard state.position < byteCount else { return nil }
                try look(&state)
            }
        }
    }

    private func look(_ state: inout State) throws(ColdframeError) {
        let extents = try source.extents(
            at: state.position, byteCount: min(Self.window, byteCount - state.position), limit: Self.extentLimit)
        guard let last = extents.last, last.end > state.position else {
            throw ColdframeError(.io, "Node '\(source.name)' describes nothing at \(state.position)")
        }
        state.position = last.end
        state.found = extents.reversed().compactMap { extent in
            if case .zero = extent.kind { return nil }
            return extent.offset..<extent.end
        }
    }
}

import ColdframeKit

/// One read of all children: who holds what.
///
/// It goes piece by piece, so that it takes a piece of memory for each child beside the first, however much is read.
struct QuorumPoll {
    private static let pieceByteCount = 256 << 10

    /// How each child failed, nil where it did not.
    private(set) var errors: [ColdframeError?]
    /// The children that hold the same, as `QuorumBallot.versions`.
    private(set) var versions: [[Int]] = []
    /// Whose content the caller's buffer has now.
    private(set) var shown = 0
    /// First byte of the disk that is found to differ.
    private(set) var firstDifference: UInt64?

    var successCount: Int { errors.count { $0 == nil } }

    /// - Parameter ask: how each of the chosen children fails in a request.
    init(
        _ children: [QuorumChild], into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64,
        ask: (_ request: QuorumRequest, _ chosen: [Int]) -> [ColdframeError?]
    ) {
        errors = [ColdframeError?](repeating: nil, count: children.count)
        var ballot = QuorumBallot(childCount: children.count)
        let pieceByteCount = min(Self.pieceByteCount, buffer.count)
        let others = UnsafeMutableRawBufferPointer.allocate(
            byteCount: pieceByteCount * children.count, alignment: 4096)
        defer { others.deallocate() }
        var done = 0
        repeat {
            let count = min(pieceByteCount, buffer.count - done)
            let start = offset + UInt64(done)
            // Child `shown` reads to where its content is wanted.
            func part(_ child: Int) -> UnsafeMutableRawBufferPointer {
                if child == shown { return UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + count]) }
                let place = child * pieceByteCount
                return UnsafeMutableRawBufferPointer(rebasing: others[place..<place + count])
            }
            let counted = children.indices.filter(ballot.isCounted)
            let failed = ask(.read(children.indices.map(part), at: start), counted)
            for index in counted {
                guard let error = failed[index] else { continue }
                errors[index] = error
                ballot.drop(index)
            }
            if done == 0, !ballot.isCounted(shown), let next = children.indices.first(where: ballot.isCounted) {
                // It takes its place, since it can show all.
                let found = UnsafeRawBufferPointer(part(next))
                shown = next
                part(next).copyMemory(from: found)
            }
            ballot.part { first, second in
                let bytes = UnsafeRawBufferPointer(part(first))
                let index = bytes.firstDifference(from: UnsafeRawBufferPointer(part(second)))
                if let index, firstDifference == nil { firstDifference = start + UInt64(index) }
                return index == nil
            }
            done += count
        } while done < buffer.count
        versions = ballot.versions
    }
}

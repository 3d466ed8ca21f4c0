/// Collects the answer of `BlockDriver.extents`: in order, neighbours of a kind joined, no more than the caller wants.
public struct ExtentList: Sendable {
    public private(set) var extents: [Extent] = []
    /// Nothing more fits: what comes next is another extent than the last.
    public private(set) var isFull = false
    private let limit: Int

    public init(limit: Int) { self.limit = max(1, limit) }

    /// How many more extents the list takes, at least 1: the next piece may continue the last.
    public var room: Int { max(1, limit - extents.count) }

    /// Appends what follows the last extent. An empty one changes nothing.
    public mutating func append(_ extent: Extent) {
        guard !isFull, extent.byteCount > 0 else { return }
        if let last = extents.last, last.isContinued(by: extent) {
            extents[extents.count - 1].byteCount += extent.byteCount
        } else if extents.count < limit {
            extents.append(extent)
        } else {
            isFull = true
        }
    }
}

extension Extent {
    /// Whether `next` is more of the same, right behind this one.
    fileprivate func isContinued(by next: Extent) -> Bool {
        guard end == next.offset else { return false }
        if case .data(let source, let hostOffset) = kind {
            return next.kind == .data(source: source, hostOffset: hostOffset + byteCount)
        }
        return kind == next.kind
    }
}

/// What several nodes that hold the same disk say of a range together.
///
/// Zero is only what all of them call zero. The rest has no place: a reader who went to one of them would not meet the others.
/// - Parameter failed: what becomes of an error of a node; if it returns, the rest of the range counts as data.
public func agreedExtents(
    of nodes: [BlockNode], at offset: UInt64, byteCount: UInt64, limit: Int,
    failed: (_ node: BlockNode, _ error: ColdframeError) throws(ColdframeError) -> Void = {
        (_, error) throws(ColdframeError) in throw error
    }
) throws(ColdframeError) -> [Extent] {
    var list = ExtentList(limit: limit)
    let end = offset + byteCount
    var position = offset
    // A disk of very many pieces is described in several answers, each in bounded time.
    var roundCount = 0
    while position < end, !list.isFull, roundCount < 1024 {
        var zeroEnd = end
        var dataEnd = position
        var isAllocated = true
        for node in nodes {
            let first: Extent
            do throws(ColdframeError) {
                first =
                    try node.direct.extents(at: position, byteCount: end - position, limit: 1).first
                    ?? Extent(offset: position, byteCount: end - position, kind: .opaque)
            } catch {
                try failed(node, error)
                dataEnd = end
                break
            }
            if case .zero(let allocated) = first.kind {
                zeroEnd = min(zeroEnd, first.end)
                isAllocated = isAllocated && allocated
            } else {
                dataEnd = max(dataEnd, first.end)
            }
        }
        let extent =
            dataEnd > position
            ? Extent(offset: position, byteCount: dataEnd - position, kind: .opaque)
            : Extent(offset: position, byteCount: zeroEnd - position, kind: .zero(allocated: isAllocated))
        list.append(extent)
        position = extent.end
        roundCount += 1
    }
    return list.extents
}

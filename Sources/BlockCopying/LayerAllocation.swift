import ColdframeKit

/// Which parts of a disk lie in some images of its chain, and not below them. Any thread that has passed a gate above.
public struct LayerAllocation: Sendable {
    /// From top to bottom, without filters: each the core's own view of a node.
    public let layers: [BlockNode]

    public init(layers: [BlockNode]) { self.layers = layers }

    /// Whether one of the images holds the bytes from `offset` on, and for how many bytes, at least 1 and at most
    /// `byteCount`, the answer holds.
    public func holds(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (isHeld: Bool, byteCount: UInt64) {
        var count = byteCount
        for layer in layers {
            let size = layer.byteCount
            // Behind the end of a short image there are zeros, whatever is below.
            guard offset < size else { return (true, count) }
            let (isAllocated, run) = try layer.direct.allocation(at: offset, byteCount: min(count, size - offset))
            if isAllocated { return (true, run) }
            count = min(count, run)
        }
        return (false, count)
    }
}

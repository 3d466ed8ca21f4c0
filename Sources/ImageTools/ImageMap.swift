import ColdframeKit

/// Which layer of a backing chain a part of a disk comes from, and how.
public struct ImageMapEntry: Sendable, Equatable {
    public var start: UInt64
    public var byteCount: UInt64
    /// 0 is the top image.
    public var depth: Int
    /// Some layer says something of it; otherwise it reads as zeros for lack of an entry.
    public var isPresent: Bool
    public var readsAsZeros: Bool
    /// It has a place in the layer's file, which may be a hole there.
    public var hasData: Bool
    /// Where it lies in the layer's file, as it is.
    public var hostOffset: UInt64?

    public init(
        start: UInt64, byteCount: UInt64, depth: Int, isPresent: Bool, readsAsZeros: Bool, hasData: Bool? = nil,
        hostOffset: UInt64?
    ) {
        self.start = start
        self.byteCount = byteCount
        self.depth = depth
        self.isPresent = isPresent
        self.readsAsZeros = readsAsZeros
        self.hasData = hasData ?? !readsAsZeros
        self.hostOffset = hostOffset
    }
}

public enum ImageMap {
    private static let window: UInt64 = 1 << 32
    private static let extentLimit = 1024

    /// Describes `range` of the disk. `layers` are the chain's images, top first, each opened without its backing file.
    /// `body` gets the entries in order, neighbours that are alike as one. Blocks.
    public static func describe(
        _ layers: [BlockNode], _ range: Range<UInt64>, _ body: (ImageMapEntry) throws -> Void
    ) throws {
        var open: ImageMapEntry?
        var position = range.lowerBound
        while position < range.upperBound {
            let next = try entry(layers, position, byteCount: range.upperBound - position)
            if let last = open, last.isContinued(by: next) {
                open?.byteCount += next.byteCount
            } else {
                if let open { try body(open) }
                open = next
            }
            position += next.byteCount
        }
        if let open { try body(open) }
    }

    private static func entry(
        _ layers: [BlockNode], _ position: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> ImageMapEntry {
        var length = min(byteCount, window)
        for (depth, layer) in layers.enumerated() {
            let size = layer.byteCount
            // Behind the end of a backing file there are zeros, which are its.
            guard position < size else {
                return ImageMapEntry(
                    start: position, byteCount: length, depth: depth, isPresent: true, readsAsZeros: true,
                    hostOffset: nil)
            }
            length = min(length, size - position)
            guard let extent = try layer.extents(at: position, byteCount: length, limit: 1).first else { continue }
            length = min(length, extent.byteCount)
            switch extent.kind {
            case .data(_, let host):
                let isHole = try hole(layer, at: host, byteCount: &length)
                return ImageMapEntry(
                    start: position, byteCount: length, depth: depth, isPresent: true, readsAsZeros: isHole,
                    hasData: true, hostOffset: host)
            case .opaque:
                return ImageMapEntry(
                    start: position, byteCount: length, depth: depth, isPresent: true, readsAsZeros: false,
                    hostOffset: nil)
            case .zero(let isAllocated):
                // What an image without others below does not hold is its content, not a lack of it; in a plain file such a
                // hole has a place as well.
                let placed = layer.driver as? any PlacedDriver
                let isAlone = !(layer.driver is any Backed) && placed?.mayStandOnAnother != true
                let isPlain = isAlone && placed == nil
                guard isAllocated || isAlone || depth == layers.count - 1 else { continue }
                let reserved = try reservedPlace(layer, at: position, byteCount: &length)
                return ImageMapEntry(
                    start: position, byteCount: length, depth: depth, isPresent: isAllocated || isAlone,
                    readsAsZeros: true, hostOffset: isPlain ? position : reserved)
            }
        }
        return ImageMapEntry(
            start: position, byteCount: length, depth: max(0, layers.count - 1), isPresent: false, readsAsZeros: true,
            hostOffset: nil)
    }

    private static func reservedPlace(
        _ layer: BlockNode, at offset: UInt64, byteCount: inout UInt64
    ) throws(ColdframeError) -> UInt64? {
        guard let driver = layer.driver as? any PlaceReserving else { return nil }
        let place = try driver.reservedPlace(at: offset, byteCount: byteCount)
        byteCount = place.byteCount
        return place.hostOffset
    }

    /// Whether what the layer calls data is a hole of its file, for that many bytes.
    private static func hole(
        _ layer: BlockNode, at hostOffset: UInt64, byteCount: inout UInt64
    ) throws(ColdframeError) -> Bool {
        guard let file = try (layer.driver as? any HoleBearing)?.fileWithHoles(),
            let extent = try file.extents(at: hostOffset, byteCount: byteCount, limit: 1).first
        else { return false }
        byteCount = min(byteCount, extent.byteCount)
        if case .zero = extent.kind { return true }
        return false
    }
}

extension ImageMapEntry {
    fileprivate func isContinued(by next: ImageMapEntry) -> Bool {
        guard depth == next.depth, isPresent == next.isPresent, readsAsZeros == next.readsAsZeros,
            hasData == next.hasData
        else { return false }
        switch (hostOffset, next.hostOffset) {
        case (nil, nil): return true
        case (let here?, let there?): return here + byteCount == there
        default: return false
        }
    }
}

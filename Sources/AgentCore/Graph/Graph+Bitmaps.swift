import ColdframeKit

// A node's bitmaps outlive its driver: they are stored before it is closed and found by the one that takes its place.

extension Graph {
    /// Flushes a node's image and has it as a close would leave it; another driver takes its place.
    /// With `isNoted` an agent that is killed meanwhile leaves word that it had the image open.
    func settle(_ node: GraphNode, isNoted: Bool = false) async throws {
        guard !node.block.isReadOnly else { return }
        try await Self.storeBitmaps(of: node)
        try await Self.close(node.block.driver)
        if !isNoted, let image = node.fileIdentity { await openImages?.closed(image) }
    }

    /// The other driver is there: the bitmaps that it has stored are those that the node has.
    func takeUp(_ node: GraphNode) async throws {
        if let bearer = node.block.driver as? any BitmapBearing {
            let stored = try await blocking { () throws(ColdframeError) in try bearer.loadBitmaps() }
            let isReadOnly = node.block.isReadOnly
            for bitmap in node.block.bitmaps.all where bitmap.state.isPersistent {
                bitmap.update { $0.isReadOnly = isReadOnly }
            }
            for bitmap in stored where node.block.bitmaps.find(bitmap.name ?? "") == nil {
                node.block.bitmaps.insert(bitmap)
            }
        }
        await openImages?.opened(node)
    }

    static func loadBitmaps(of node: GraphNode) async throws {
        guard let bearer = node.block.driver as? any BitmapBearing else { return }
        let stored = try await blocking { () throws(ColdframeError) in try bearer.loadBitmaps() }
        for bitmap in stored.reversed() { node.block.bitmaps.insert(bitmap) }
    }

    static func storeBitmaps(of node: GraphNode) async throws {
        guard !node.block.isReadOnly, let bearer = node.block.driver as? any BitmapBearing else { return }
        let persistent = node.block.bitmaps.all.filter { $0.state.isPersistent }
        try await blocking { () throws(ColdframeError) in try bearer.storeBitmaps(persistent.reversed()) }
    }
}

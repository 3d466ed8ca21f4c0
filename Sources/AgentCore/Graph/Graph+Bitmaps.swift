import ColdframeKit

// A node's bitmaps outlive its driver: they are stored before it is closed and found by the one that takes its place.

extension Graph {
    /// Flushes a node's image and has it as a close would leave it; another driver takes its place.
    /// - Parameter image: it is not open any more; with nil an agent that is killed meanwhile leaves word that it was.
    func settle(_ node: GraphNode, image: FileIdentity?) async throws {
        // A filter above an image that another node has open does not speak for it.
        let wasNoted = !node.block.isReadOnly && node.block.driver is any LeakReclaiming
        try await Self.storeBitmaps(of: node)
        try await Self.close(node.block.driver)
        if wasNoted, let image { await openImages?.closed(image) }
    }

    /// The other driver is there: the bitmaps that it has stored are those that the node has.
    func takeUp(_ node: GraphNode) async throws {
        if let bearer = node.block.driver as? any BitmapBearing {
            let stored = try await blocking { () throws(ColdframeError) in try bearer.loadBitmaps() }
            let isReadOnly = node.block.isReadOnly
            for bitmap in node.block.bitmaps.all where bitmap.state.isPersistent {
                bitmap.update { $0.isReadOnly = isReadOnly }
            }
            for bitmap in stored {
                let name = bitmap.name ?? ""
                guard let own = node.block.bitmaps.find(name) else {
                    node.block.bitmaps.insert(bitmap)
                    continue
                }
                guard own.state.isPersistent else {
                    throw ColdframeError(
                        .alreadyExists,
                        "Node '\(node.name)' has a bitmap '\(name)' that is stored nowhere, and its image has another one of "
                            + "that name: remove the first")
                }
            }
        }
        await openImages?.opened(node)
    }

    static func loadBitmaps(of node: GraphNode) async throws {
        guard let bearer = node.block.driver as? any BitmapBearing else { return }
        let stored = try await blocking { () throws(ColdframeError) in try bearer.loadBitmaps() }
        for bitmap in stored.reversed() { node.block.bitmaps.insert(bitmap) }
    }

    /// Changes the size of a node that stands still, and of its bitmaps.
    static func resize(_ node: GraphNode, _ driver: any Resizable, toByteCount byteCount: UInt64) async throws {
        try await checkBitmaps(of: node, fit: byteCount)
        try await blocking { () throws(ColdframeError) in try driver.resize(toByteCount: byteCount) }
        node.block.bitmaps.resize(toDiskByteCount: driver.byteCount)
    }

    /// Throws if one of the node's stored bitmaps would have no room in its image for a disk of that size.
    private static func checkBitmaps(of node: GraphNode, fit diskByteCount: UInt64) async throws {
        guard let bearer = node.block.driver as? any BitmapBearing, diskByteCount > node.block.byteCount else { return }
        for bitmap in node.block.bitmaps.all where bitmap.state.isPersistent {
            try await checkRoom(
                in: node, bearer, for: bitmap.name ?? "", bitmap.granularity, diskByteCount: diskByteCount, beside: [])
        }
    }

    /// Throws if a node's image could not hold such a bitmap.
    static func checkRoom(
        in node: GraphNode, _ bearer: any BitmapBearing, for name: String, _ granularity: UInt32,
        diskByteCount: UInt64, beside others: [String]
    ) async throws {
        do {
            try await blocking { () throws(ColdframeError) in
                try bearer.checkCanStoreBitmap(
                    name: name, granularity: granularity, diskByteCount: diskByteCount, beside: others)
            }
        } catch {
            throw ColdframeError(
                error.code, "Can't make bitmap '\(name)' persistent in '\(node.name)': \(error.message)",
                errno: error.errno)
        }
    }

    static func storeBitmaps(of node: GraphNode) async throws {
        guard !node.block.isReadOnly, let bearer = node.block.driver as? any BitmapBearing else { return }
        let persistent = node.block.bitmaps.all.filter { $0.state.isPersistent }
        try await blocking { () throws(ColdframeError) in try bearer.storeBitmaps(persistent.reversed()) }
    }
}

/// Bitmaps that are stored in an image go with it when its node is given another.
struct ImageBitmaps {
    private var parted: [(node: GraphNode, bitmaps: [DirtyBitmap])] = []

    /// The node's driver is closed.
    @AgentActor
    mutating func part(from node: GraphNode, ifNot image: FileIdentity?) {
        guard image == nil || image != node.fileIdentity else { return }
        let stored = node.block.bitmaps.all.filter { $0.state.isPersistent }
        parted.append((node, stored))
        for bitmap in stored { node.block.bitmaps.remove(bitmap) }
    }

    /// The nodes get the images that they had.
    @AgentActor
    mutating func comeBack() {
        for (node, bitmaps) in parted {
            for bitmap in node.block.bitmaps.all where bitmap.state.isPersistent { node.block.bitmaps.remove(bitmap) }
            for bitmap in bitmaps.reversed() { node.block.bitmaps.insert(bitmap) }
        }
        parted = []
    }
}

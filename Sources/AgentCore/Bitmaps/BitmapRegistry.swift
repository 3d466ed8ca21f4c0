import ColdframeKit
import LinuxSystem
import QAPI

/// Finds, makes and removes the dirty bitmaps of nodes, with QEMU's checks and texts.
@AgentActor
struct BitmapRegistry {
    let graph: Graph

    /// What a bitmap must not be for a command to use it.
    struct Obstacles: OptionSet {
        let rawValue: Int
        static let busy = Obstacles(rawValue: 1)
        static let readOnly = Obstacles(rawValue: 2)
        static let inconsistent = Obstacles(rawValue: 4)
        /// For commands that change the bits.
        static let change: Obstacles = [.busy, .readOnly, .inconsistent]
        /// For commands that leave what is stored in the image alone.
        static let use: Obstacles = [.busy, .inconsistent]
    }

    func find(node nodeName: String, name: String) throws -> (node: GraphNode, bitmap: DirtyBitmap) {
        guard let node = graph.find(nodeName: nodeName) else {
            throw ColdframeError(.notFound, "Node '\(nodeName)' not found")
        }
        return (node, try find(name, on: node))
    }

    func find(_ name: String, on node: GraphNode) throws -> DirtyBitmap {
        guard let bitmap = node.block.bitmaps.find(name) else {
            throw ColdframeError(.notFound, "Dirty bitmap '\(name)' not found")
        }
        return bitmap
    }

    static func check(_ bitmap: DirtyBitmap, against obstacles: Obstacles) throws {
        let state = bitmap.state
        let name = state.name ?? ""
        if obstacles.contains(.busy), state.isBusy {
            throw ColdframeError(
                .busy, "Bitmap '\(name)' is currently in use by another operation and cannot be used")
        }
        if obstacles.contains(.readOnly), state.isReadOnly {
            throw ColdframeError(.permission, "Bitmap '\(name)' is readonly and cannot be modified")
        }
        if obstacles.contains(.inconsistent), state.isInconsistent {
            throw ColdframeError(.corrupt, "Bitmap '\(name)' is inconsistent and cannot be used")
        }
    }

    // MARK: Making and removing

    @discardableResult
    func add(_ request: BlockDirtyBitmapAdd) async throws -> DirtyBitmap {
        guard !request.name.isEmpty else { throw ColdframeError(.invalidArgument, "Bitmap name cannot be empty") }
        let node = try graph.find(deviceOrNode: request.node)
        let granularity = try granularity(request.granularity, of: node)
        if request.persistent ?? false { try await checkCanStore(request.name, granularity, in: node) }
        // From here on without a suspension: the name is free until the bitmap is there.
        try checkFree(request.name, in: node)
        guard request.name.utf8.count <= DirtyBitmap.nameByteCountLimit else {
            throw ColdframeError(.invalidArgument, "Bitmap name too long: \(request.name)")
        }
        let bitmap = DirtyBitmap(
            name: request.name, granularity: granularity, diskByteCount: node.block.byteCount)
        bitmap.update { state in
            state.isRecording = !(request.disabled ?? false)
            state.isPersistent = request.persistent ?? false
        }
        node.block.bitmaps.insert(bitmap)
        return bitmap
    }

    private func granularity(_ wanted: UInt32?, of node: GraphNode) throws -> UInt32 {
        if let wanted {
            guard wanted >= 512, wanted.nonzeroBitCount == 1 else {
                throw ColdframeError(.invalidArgument, "Granularity must be power of 2 and at least 512")
            }
            return wanted
        }
        return defaultGranularity(of: node)
    }

    private func checkFree(_ name: String, in node: GraphNode) throws {
        guard node.block.bitmaps.find(name) == nil else {
            throw ColdframeError(.alreadyExists, "Bitmap already exists: \(name)")
        }
    }

    private func checkCanStore(_ name: String, _ granularity: UInt32, in node: GraphNode) async throws {
        guard let bearer = node.block.driver as? any BitmapBearing else {
            throw ColdframeError(
                .unsupported, "Can't store persistent bitmaps to \(node.name): Operation not supported")
        }
        // QEMU looks for it before it looks at what the image can hold.
        try checkFree(name, in: node)
        let others = node.block.bitmaps.all.filter { $0.state.isPersistent }.compactMap(\.name)
        try await Graph.checkRoom(
            in: node, bearer, for: name, granularity, diskByteCount: node.block.byteCount, beside: others)
    }

    func remove(node nodeName: String, name: String) async throws {
        let (node, bitmap) = try find(node: nodeName, name: name)
        try Self.check(bitmap, against: [.busy, .readOnly])
        bitmap.update { $0.isBusy = true }
        do {
            try await removeStored(bitmap, of: node)
        } catch {
            bitmap.update { $0.isBusy = false }
            throw error
        }
        node.block.bitmaps.remove(bitmap)
    }

    /// Takes a persistent bitmap out of its image; the node's own stays.
    func removeStored(_ bitmap: DirtyBitmap, of node: GraphNode) async throws {
        guard bitmap.state.isPersistent, let bearer = node.block.driver as? any BitmapBearing,
            let name = bitmap.name
        else { return }
        try await blocking { () throws(ColdframeError) in try bearer.removeStoredBitmap(name: name) }
    }

    // MARK: Bits

    func clear(node: String, name: String) throws {
        let bitmap = try find(node: node, name: name).bitmap
        try Self.check(bitmap, against: .change)
        bitmap.clear()
    }

    func setRecording(_ isRecording: Bool, node: String, name: String) throws {
        let bitmap = try find(node: node, name: name).bitmap
        try Self.check(bitmap, against: .use)
        bitmap.update { $0.isRecording = isRecording }
    }

    /// Adds the bits of all or of none. Returns the target and the bits that it had.
    @discardableResult
    func merge(_ request: BlockDirtyBitmapMerge) throws -> (target: DirtyBitmap, before: DirtyBits) {
        let (node, target) = try find(node: request.node, name: request.target)
        guard !request.bitmaps.isEmpty else {
            throw ColdframeError(.invalidArgument, "Parameter 'bitmaps' needs at least one bitmap")
        }
        let sources = try request.bitmaps.map { reference in
            let source =
                switch reference {
                case .local(let name): try find(name, on: node)
                case .external(let bitmap): try find(node: bitmap.node, name: bitmap.name).bitmap
                }
            try Self.check(target, against: .change)
            try Self.check(source, against: .use)
            guard source.diskByteCount == target.diskByteCount else {
                throw ColdframeError(
                    .invalidArgument,
                    "Bitmaps are of different sizes (destination size is \(target.diskByteCount), "
                        + "source size is \(source.diskByteCount)) and can't be merged")
            }
            return source
        }
        let before = target.bits
        for source in sources {
            // A copy: two locks are never held at once.
            let bits = source.bits
            target.updateBits { $0.formUnion(bits) }
        }
        return (target, before)
    }

    // MARK: For exports

    /// The bitmap of that name on the node or on the images and filtered nodes below it, as an NBD export looks for it.
    func find(_ name: String, visibleAt node: GraphNode) throws -> (node: GraphNode, bitmap: DirtyBitmap) {
        var current: GraphNode? = node
        while let here = current {
            if let bitmap = here.block.bitmaps.find(name) { return (here, bitmap) }
            current = here.below
        }
        throw ColdframeError(.notFound, "Bitmap '\(name)' is not found")
    }
}

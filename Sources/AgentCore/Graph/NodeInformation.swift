import ColdframeKit
import QAPI
import QMPWire

/// What `query-named-block-nodes` and `query-block` say of a node.
@AgentActor
struct NodeInformation {
    let graph: Graph

    /// All nodes of the graph but private ones, newest first, as QEMU lists them.
    /// - Parameter isFlat: each without those that are shown through it.
    func nodes(isFlat: Bool = false) async throws -> [BlockDeviceInfo] {
        var all: [BlockDeviceInfo] = []
        for node in graph.nodes.reversed() where !node.isPrivate {
            do {
                all.append(try await describe(node, isFlat: isFlat))
            } catch  where !graph.nodes.contains(where: { $0 === node }) {
                // It was deleted while its image was being asked.
                continue
            }
        }
        return all
    }

    private func describe(_ node: GraphNode, isFlat: Bool) async throws -> BlockDeviceInfo {
        let driver = node.block.driver
        let image = try await image(node, isFlat: isFlat)
        let cache = node.options?.cache
        let bitmaps = node.block.bitmaps.all.map(\.information)
        return BlockDeviceInfo(
            file: driver.displayFilename, nodeName: node.name, ro: node.block.isReadOnly, drv: driver.driverName,
            backingFile: image.backingFilename, backingFileDepth: isFlat ? 0 : depth(of: node), encrypted: false,
            detectZeroes: node.options?.detectZeroes ?? .off, bps: 0, bpsRd: 0, bpsWr: 0, iops: 0, iopsRd: 0, iopsWr: 0,
            image: image,
            cache: BlockdevCacheInfo(
                writeback: true, direct: cache?.direct ?? false, noFlush: cache?.noFlush ?? false),
            writeThreshold: Int64(clamping: node.body.watch.thresholdOffset),
            dirtyBitmaps: bitmaps.isEmpty ? nil : bitmaps)
    }

    private func depth(of node: GraphNode) -> Int64 {
        var depth: Int64 = 0
        var current = node
        while let next = current.below {
            depth += 1
            current = next
        }
        return depth
    }

    /// The image and, inside it, those that it is backed by.
    func image(_ node: GraphNode, isFlat: Bool = false) async throws -> ImageInfo {
        let driver = node.block.driver
        let next = isFlat ? nil : node.below
        let information = try await blocking { () throws(ColdframeError) in try driver.information() }
        let snapshots = (driver as? any SnapshotBearing)?.snapshots ?? []
        let specific = try information.formatSpecific.map { type, data in
            try ImageInfoSpecific(QAPIInput(["type": .string(type), "data": .object(data)]))
        }
        var backingImage: QAPIBox<ImageInfo>?
        if let next { backingImage = QAPIBox(try await image(next)) }
        return ImageInfo(
            filename: driver.displayFilename, format: driver.driverName, dirtyFlag: information.isDirty ? true : nil,
            actualSize: information.allocatedByteCount.map { Int64(clamping: $0) },
            virtualSize: Int64(clamping: driver.byteCount),
            clusterSize: driver.clusterByteCount.map { Int64($0) },
            backingFilename: information.backingFilename,
            fullBackingFilename: information.backingFilename.flatMap {
                Self.fullBackingFilename($0, imageFilename: driver.displayFilename)
            },
            backingFilenameFormat: information.backingFormat,
            snapshots: snapshots.isEmpty ? nil : snapshots.map(\.wire), backingImage: backingImage,
            formatSpecific: specific)
    }

    /// Relative names count from the image's folder. nil where the image is not a plain file and so has none.
    static func fullBackingFilename(_ filename: String, imageFilename: String) -> String? {
        let head = filename.prefix { $0 != "/" }
        if filename.hasPrefix("/") || head.contains(":") { return filename }
        if imageFilename.hasPrefix("json:") { return nil }
        guard let slash = imageFilename.lastIndex(of: "/") else { return filename }
        return imageFilename[...slash] + filename
    }
}

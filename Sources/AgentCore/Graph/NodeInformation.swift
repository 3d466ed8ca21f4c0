import ColdframeKit
import QAPI
import QMPWire

/// What `query-named-block-nodes` and `query-block` say of a node.
@AgentActor
struct NodeInformation {
    let graph: Graph

    /// All nodes of the graph but private ones, newest first, as QEMU lists them.
    func nodes() async throws -> [BlockDeviceInfo] {
        var all: [BlockDeviceInfo] = []
        for node in graph.nodes.reversed() where !node.isPrivate {
            all.append(try await describe(node))
        }
        return all
    }

    private func describe(_ node: GraphNode) async throws -> BlockDeviceInfo {
        let driver = node.block.driver
        let information = try await blocking { () throws(ColdframeError) in try driver.information() }
        let cache = node.options?.cache
        return BlockDeviceInfo(
            file: driver.displayFilename, nodeName: node.name, ro: driver.isReadOnly, drv: driver.driverName,
            backingFile: information.backingFilename, backingFileDepth: depth(of: node), encrypted: false,
            detectZeroes: node.options?.detectZeroes ?? .off, bps: 0, bpsRd: 0, bpsWr: 0, iops: 0, iopsRd: 0, iopsWr: 0,
            image: image(node, information),
            cache: BlockdevCacheInfo(
                writeback: true, direct: cache?.direct ?? false, noFlush: cache?.noFlush ?? false),
            writeThreshold: 0)
    }

    private func depth(of node: GraphNode) -> Int64 {
        var depth: Int64 = 0
        var current = node
        while let backing = current.children.first(where: { $0.name == "backing" })?.node {
            depth += 1
            current = backing
        }
        return depth
    }

    private func image(_ node: GraphNode, _ information: BlockInformation) -> ImageInfo {
        let driver = node.block.driver
        let snapshots = (driver as? any SnapshotBearing)?.snapshots ?? []
        return ImageInfo(
            filename: driver.displayFilename, format: driver.driverName, dirtyFlag: information.isDirty ? true : nil,
            actualSize: information.allocatedByteCount.map { Int64(clamping: $0) },
            virtualSize: Int64(clamping: driver.byteCount),
            clusterSize: information.clusterByteCount.map { Int64($0) },
            backingFilename: information.backingFilename,
            backingFilenameFormat: information.backingFormat,
            snapshots: snapshots.isEmpty ? nil : snapshots.map(\.wire))
    }
}

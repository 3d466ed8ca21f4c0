import ColdframeKit
import QAPI

/// What `query-blockstats` says of nodes, and the picture of the graph for `x-debug-query-block-graph`.
@AgentActor
struct GraphStatistics {
    let graph: Graph

    /// Oldest node first.
    func nodes() -> [BlockStats] {
        graph.nodes.filter { !$0.isPrivate }.map(statistics)
    }

    private func statistics(_ node: GraphNode) -> BlockStats {
        let driver = node.block.driver
        var specific: BlockStatsSpecific?
        if let counts = (driver as? any DiscardCounting)?.discardCounts {
            specific = BlockStatsSpecific(
                driver: .file,
                branch: .file(
                    BlockStatsSpecificFile(
                        discardNbOk: counts.succeeded, discardNbFailed: counts.failed,
                        discardBytesOk: counts.byteCount)))
        }
        // Where the guest's data lies.
        let data = node.filtered?.node ?? node.child("data-file") ?? node.child("file")
        return BlockStats(
            nodeName: node.name, stats: Self.counters(highestWriteEnd: node.body.watch.highestWriteEnd),
            driverSpecific: specific, parent: data.map { QAPIBox(statistics($0)) })
    }

    private static func counters(highestWriteEnd: UInt64) -> BlockDeviceStats {
        BlockDeviceStats(
            rdBytes: 0, wrBytes: 0, unmapBytes: 0, rdOperations: 0, wrOperations: 0, flushOperations: 0,
            unmapOperations: 0, rdTotalTimeNs: 0, wrTotalTimeNs: 0, flushTotalTimeNs: 0, unmapTotalTimeNs: 0,
            wrHighestOffset: Int64(clamping: highestWriteEnd), rdMerged: 0, wrMerged: 0, unmapMerged: 0,
            failedRdOperations: 0, failedWrOperations: 0, failedFlushOperations: 0, failedUnmapOperations: 0,
            invalidRdOperations: 0, invalidWrOperations: 0, invalidFlushOperations: 0, invalidUnmapOperations: 0,
            accountInvalid: false, accountFailed: false, timedStats: [])
    }

    // MARK: The picture

    func picture(of jobs: [Job]) -> XDbgBlockGraph {
        var picture = XDbgBlockGraph(nodes: [], edges: [])
        var numbers: [ObjectIdentifier: UInt64] = [:]
        func number(_ object: AnyObject) -> UInt64 {
            if let number = numbers[ObjectIdentifier(object)] { return number }
            let number = UInt64(numbers.count + 1)
            numbers[ObjectIdentifier(object)] = number
            return number
        }
        let shown = graph.nodes.filter { !$0.isPrivate }
        for job in jobs where job.driver.isBlockJob {
            picture.nodes.append(.init(id: number(job), type: .blockJob, name: job.jobID))
        }
        for node in shown {
            picture.nodes.append(.init(id: number(node), type: .blockDriver, name: node.name))
        }
        for node in shown {
            for use in node.uses {
                let parent: AnyObject
                if let above = use.parent {
                    parent = above
                } else if let job = jobs.first(where: {
                    ($0.driver as? any NodeUsing)?.uses.contains { $0 === use } == true
                }) {
                    parent = job
                } else {
                    parent = use
                    let name = if case .export(let id) = use.kind { id } else { use.user }
                    picture.nodes.append(.init(id: number(use), type: .blockBackend, name: name))
                }
                picture.edges.append(
                    .init(
                        parent: number(parent), child: number(node), name: use.role,
                        perm: use.permissions.wire, sharedPerm: use.shared.wire))
            }
        }
        return picture
    }
}

/// A job whose uses of nodes are known.
@AgentActor
protocol NodeUsing: AnyObject {
    var uses: [NodeUse] { get }
}

extension NodePermissions {
    fileprivate var wire: [BlockPermission] {
        let table: [(NodePermissions, BlockPermission)] = [
            (.consistentRead, .consistentRead), (.write, .write), (.writeUnchanged, .writeUnchanged),
            (.resize, .resize),
        ]
        return table.filter { contains($0.0) }.map(\.1)
    }
}

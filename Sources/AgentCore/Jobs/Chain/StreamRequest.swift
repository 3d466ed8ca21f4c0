import ColdframeKit
import LinuxSystem
import QAPI

/// What a stream was asked for, checked as QEMU checks it, in its order and with its texts.
@AgentActor
struct StreamRequest {
    let arguments: BlockStreamArguments
    let top: GraphNode
    /// The top and all that is taken out of the chain below it, with the filters.
    let taken: [GraphNode]
    /// The images between the top and what stays, without filters.
    let intermediates: [GraphNode]

    init(_ arguments: BlockStreamArguments, graph: Graph) async throws {
        self.arguments = arguments
        let pairs = [
            ("base", arguments.base, "base-node", arguments.baseNode),
            ("base", arguments.base, "bottom", arguments.bottom),
            ("bottom", arguments.bottom, "base-node", arguments.baseNode),
        ]
        for (first, one, second, other) in pairs where one != nil && other != nil {
            throw ColdframeError(
                .invalidArgument, "'\(first)' and '\(second)' cannot be specified at the same time")
        }
        let top = try graph.find(deviceOrNode: arguments.device)
        self.top = top
        var base: GraphNode?
        if let filename = arguments.base {
            base = await top.backing(named: filename)
            guard base != nil else {
                throw ColdframeError(.notFound, "Can't find '\(filename)' in the backing chain")
            }
        }
        if let name = arguments.baseNode {
            let node = try graph.find(nodeOnly: name)
            guard node !== top, top.chain.contains(where: { $0 === node }) else {
                throw ColdframeError(
                    .invalidArgument, "Node '\(name)' is not a backing image of '\(arguments.device)'")
            }
            base = node
        }
        var lowest: GraphNode?
        if let name = arguments.bottom {
            let node = try graph.find(nodeOnly: name)
            guard !node.isFilter else {
                throw ColdframeError(
                    .invalidArgument, "Node '\(name)' is a filter, use a non-filter node as 'bottom'")
            }
            guard top.chain.contains(where: { $0 === node }) else {
                throw ColdframeError(
                    .invalidArgument, "Node '\(name)' is not in a chain starting from '\(arguments.device)'")
            }
            lowest = node
        }
        let end = lowest.map { $0.below } ?? base
        for node in top.chain.prefix(while: { $0 !== end }) { try node.checkUnblocked(for: .stream) }
        if base == nil, arguments.backingFile != nil {
            throw ColdframeError(.invalidArgument, "backing file specified, but streaming the entire chain")
        }
        taken = top.chain.prefix { $0 !== end }.map(\.self)
        if let last = taken.last {
            // It is the job's filter that QEMU cannot make then.
            do { try top.checkThawed(downTo: last) } catch {
                throw ColdframeError(wrapping: error).prefixed("Could not create node")
            }
        }
        intermediates = taken.dropFirst().filter { !$0.isFilter && $0 !== top.withoutFilters }
    }
}

extension GraphNode {
    /// The image below the node that is called so, by its own file's name or by what the image above it says.
    func backing(named filename: String) async -> GraphNode? {
        for image in layers {
            guard let backing = image.backing else { continue }
            let driver = image.block.driver
            let named = await BlockingPool.shared.run { (try? driver.information())?.backingFilename }
            let own = backing.block.driver.displayFilename
            let full = named.flatMap {
                NodeInformation.fullBackingFilename($0, imageFilename: driver.displayFilename)
            }
            if [own, named, full].contains(filename) { return backing }
        }
        return nil
    }

    /// What an image above it is to name as its backing file.
    var namedAsBacking: (filename: String, format: String) {
        let driver = withoutFilters.block.driver
        let filename = driver.displayFilename
        let isPath = !filename.hasPrefix("json:")
        return (isPath ? (try? Files.absolutePath(filename)) ?? filename : filename, driver.driverName)
    }
}

import ColdframeKit
import QAPI
import QMPWire

/// A graph without an agent around it: opens and makes images for a program that works on them and ends. Names, locks,
/// permissions and the gate for file names found in images are the agent's.
@AgentActor
public final class ImageWorkshop {
    private let graph: Graph
    private var imageCount = 0

    /// `allowedFolders` as `--allow-backing`. The modules' branches must be installed in the branch table already.
    public init(modules: [Module], allowedFolders: [String]) {
        graph = Graph(
            factories: modules.flatMap(\.blockDrivers), gate: ImageReferenceGate(allowedFolders: allowedFolders))
    }

    /// Opens an image. `options` as for `blockdev-add`, without a node name.
    public func open(_ options: JSONObject) async throws -> BlockNode {
        imageCount += 1
        var options = options
        options["node-name"] = .string("image\(imageCount)")
        let node = try await graph.open(
            BlockdevOptions(QAPIInput(.object(options))), inherited: InheritedOptions(), isMonitorOwned: true)
        return node.block
    }

    /// QEMU's `ImageInfo` of an open image, with those that it is backed by.
    public func information(of node: BlockNode) async throws -> JSONValue {
        let information = try await NodeInformation(graph: graph).image(graph.find(deviceOrNode: node.name))
        return information.json
    }

    /// Closes one image and what only it used.
    public func close(_ node: BlockNode) async throws { try await graph.remove(nodeName: node.name) }

    /// Closes all images. Throws if one could not be written to its end.
    public func close() async throws {
        if let failure = await graph.closeAll().first { throw failure }
    }

    /// `blockdev-create`. `advance` is called with bytes that were prepared.
    public func create(
        _ options: JSONObject, advance: @escaping @Sendable @AgentActor (UInt64) -> Void = { _ in }
    ) async throws {
        try await ImageCreation(graph: graph, progress: advance).run(
            BlockdevCreateOptions(QAPIInput(.object(options))))
    }

    /// `x-blockdev-amend` of an open image; the node shows what it has become.
    public func amend(
        _ node: BlockNode, _ options: JSONObject, progress: @escaping AmendProgress
    ) async throws {
        try await graph.amend(
            graph.find(deviceOrNode: node.name), BlockdevAmendOptions(QAPIInput(.object(options))), progress: progress)
    }

    /// What can check images of a format; an error if nothing can.
    public func checker(of format: String) throws -> any ImageChecking {
        guard let checker = try graph.factory(for: format) as? any ImageChecking else {
            throw ColdframeError(.unsupported, "This image format does not support checks")
        }
        return checker
    }
}

import ColdframeKit
import LinuxSystem

/// Finds the images of an intent among the nodes, and says what is in the way where one is missing.
@AgentActor
struct IntentImages {
    let graph: Graph

    typealias Match = (image: Intent.Image, node: GraphNode)

    /// One node for every image of the intent, or nil while one is missing.
    func nodes(of intent: Intent) -> [Match]? {
        var found: [Match] = []
        for image in intent.images {
            guard let node = node(of: image) else { return nil }
            found.append((image, node))
        }
        return found
    }

    private func node(of image: Intent.Image) -> GraphNode? {
        graph.nodes.first { node in
            node.isListed && !node.block.isReadOnly && node.block.driver is any SnapshotBearing
                && node.block.driver.driverName == image.format && node.fileIdentity.map(image.isFile) == true
        }
    }

    /// Why the intent has to wait, one sentence per image that is not here. May look at files.
    func obstacles(_ intent: Intent) async -> [String] {
        var obstacles: [String] = []
        for image in intent.images where node(of: image) == nil {
            let isReadOnly = graph.nodes.contains { $0.block.isReadOnly && $0.fileIdentity.map(image.isFile) == true }
            if isReadOnly {
                obstacles.append("Image '\(image.path)' of node '\(image.nodeName)' is open read-only")
            } else {
                let words = await BlockingPool.shared.run { Self.describe(image) }
                obstacles.append("Image '\(image.path)' of node '\(image.nodeName)' \(words)")
            }
        }
        return obstacles.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    private nonisolated static func describe(_ image: Intent.Image) -> String {
        guard let file = try? Descriptor.open(image.path, .readOnly), let status = try? file.status() else {
            return "cannot be found"
        }
        let identity = FileIdentity(
            device: status.device, inode: status.inode, path: image.path,
            birthNanoseconds: (try? file.birthNanoseconds()) ?? nil)
        return image.isFile(identity)
            ? "is not open for writing here: add it with blockdev-add" : "is another file than it was"
    }
}

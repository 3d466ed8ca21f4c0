import ColdframeKit
import QAPI
import QMPWire

/// The image that `drive-backup` or `drive-mirror` copies to, made or found by its file name.
@AgentActor
struct DriveTarget {
    let node: GraphNode
    private let image: NewImage
    private let graph: Graph

    /// What is below the target while it is written.
    enum Backing {
        /// What the image names; nothing for one that is made.
        case asNamed
        case none
        case node(GraphNode)
        /// The image names the node; the job puts it there.
        case later(GraphNode)
    }

    struct Request {
        var filename: String
        var format: String?
        var mode: NewImageMode?
        var nodeName: String?
        var discards: Bool
        var isMade: Bool { mode ?? .absolutePaths != .existing }
    }

    init(_ request: Request, for source: GraphNode, backing: Backing, graph: Graph) async throws {
        self.graph = graph
        let format: String
        if let given = request.format {
            format = given
        } else if request.isMade {
            format = source.block.driver.driverName
        } else {
            // Guessing a format from content lets a guest write itself a backing file.
            throw ColdframeError(
                .invalidArgument, "Parameter 'format' is missing: the format of an existing image is not guessed")
        }
        image = NewImage(path: request.filename, format: format, graph: graph)
        var (named, below): (GraphNode?, GraphNode?) = (nil, nil)
        switch backing {
        case .node(let node): (named, below) = (node, node)
        case .later(let node): named = node
        case .asNamed, .none: break
        }
        if request.isMade {
            do { try await image.create(byteCount: source.block.byteCount, backing: named) } catch {
                try? await image.remove()
                throw error
            }
        }
        var members: JSONObject = [:]
        if request.discards { members["discard"] = "unmap" }
        members["cache"] = source.options?.object["cache"]
        do {
            let target = try await Self.open(image, request.nodeName, members, format, backing, graph: graph)
            node = target
            do { if let below { try graph.setBacking(of: target, to: below) } } catch {
                try await graph.close(target)
                throw error
            }
        } catch {
            try? await image.remove()
            throw error
        }
    }

    private static func open(
        _ image: NewImage, _ name: String?, _ members: JSONObject, _ format: String, _ backing: Backing, graph: Graph
    ) async throws -> GraphNode {
        if case .asNamed = backing { return try await image.open(name: name, members) }
        var alone = members
        alone["backing"] = .null
        do { return try await image.open(name: name, alone) } catch is QMPError {
            // A format without backing images.
            guard case .none = backing else {
                throw ColdframeError(.unsupported, "Backing file not supported for file format '\(format)'")
            }
            return try await image.open(name: name, members)
        }
    }

    /// The job could not be made.
    func giveUp() async {
        await graph.letGo(node)
        try? await image.remove()
    }
}

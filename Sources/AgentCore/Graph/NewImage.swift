import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// An image file that a command makes, or finds, and opens for itself: an overlay, the target of a backup or a mirror.
@AgentActor
final class NewImage {
    private let path: String
    private let format: String
    private let graph: Graph
    /// The file was not there before.
    private var isNew = false

    init(path: String, format: String, graph: Graph) {
        self.path = path
        self.format = format
        self.graph = graph
    }

    /// Makes the image; a file that is there is overwritten, unless somebody uses it.
    func create(byteCount: UInt64, backing: GraphNode? = nil) async throws {
        guard (try? graph.factory(for: format)) != nil else {
            throw ColdframeError(.unsupported, "Unknown file format '\(format)'")
        }
        let path = path
        isNew = await BlockingPool.shared.run { !Files.exists(path) }
        var image: JSONObject = [
            "driver": .string(format), "file": ["driver": "file", "filename": .string(path)],
            "size": JSONValue((byteCount + 511) / 512 * 512),
        ]
        if let named = backing?.namedAsBacking {
            image["backing-file"] = .string(named.filename)
            image["backing-fmt"] = .string(named.format)
        }
        let options: BlockdevCreateOptions
        do { options = try BlockdevCreateOptions(QAPIInput(.object(image))) } catch {
            isNew = false
            throw ColdframeError(.unsupported, "Backing file not supported for file format '\(format)'")
        }
        let file: JSONValue = ["driver": "file", "filename": .string(path), "size": 0]
        try await ImageCreation(graph: graph) { _ in }.run(BlockdevCreateOptions(QAPIInput(file)))
        try await ImageCreation(graph: graph) { _ in }.run(options)
    }

    /// Opens it as a node that no client owns.
    /// - Parameter members: what its options have beside format and file.
    func open(name: String?, _ members: JSONObject) async throws -> GraphNode {
        var options: JSONObject = [
            "driver": .string(format), "file": ["driver": "file", "filename": .string(path)],
        ]
        options["node-name"] = name.map { .string($0) }
        for (key, value) in members { options[key] = value }
        return try await graph.open(
            BlockdevOptions(QAPIInput(.object(options))), inherited: InheritedOptions(), isMonitorOwned: false)
    }

    /// Takes away a file that was made for nothing.
    func remove() async throws {
        guard isNew else { return }
        let path = path
        try await blocking { () throws(ColdframeError) in
            do throws(SystemError) { if Files.exists(path) { try Files.unlink(path) } } catch {
                throw ColdframeError(error, "Could not remove '\(path)'")
            }
        }
    }
}

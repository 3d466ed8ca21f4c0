import ArgumentParser
import LinuxSystem
import QMPWire

/// `coldframe browse NAME [TAG]` and `coldframe browse --image FILE [--mountpoint DIR]`
struct Browse: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show snapshots as folders: those of an agent, or those of an image file.",
        discussion: """
            With an agent's name the tree is mounted by the agent and stays; the command prints where it is. With --image \
            the snapshots of a file are shown until Ctrl-C; no agent and no guest is needed.
            """)

    @Argument(help: "Name of the agent.") var name: String?
    @Argument(help: "Tag of one snapshot; default: all.") var tag: String?
    @Option(help: "A qcow2 file instead of an agent.") var image: String?
    @Option(help: "An empty folder to mount at.") var mountpoint: String?
    @Flag(help: "With --image: another program may be writing to the image.") var forceShare = false
    @Option(help: "With --image: a folder whose files the image may name as its backing file.")
    var allowBacking: [String] = []
    @Flag(help: "Print as JSON.") var json = false

    func validate() throws {
        guard (name == nil) != (image == nil) else {
            throw ValidationError("Give the name of an agent, or --image FILE")
        }
    }

    func run() throws {
        if let image {
            try ImageBrowser(
                image: image, mountpoint: mountpoint, forceShare: forceShare,
                allowedBackingFolders: allowBacking, isJSON: json
            ).run()
        } else if let name {
            try browse(agent: name)
        }
    }

    private func browse(agent name: String) throws {
        let session = try Session(agent: name)
        let exports = try session.execute("query-snapshot-exports").arrayValue ?? []
        let root: String
        if let existing = exports.first?["mountpoint"]?.stringValue, mountpoint == nil {
            root = existing
        } else {
            root = try mountpoint ?? Self.defaultMountpoint(name)
            try session.execute(
                "snapshot-export-add",
                ["id": .string("browse\(exports.count)"), "mountpoint": .string(Self.absolute(root))])
        }
        let path = try tag.map { tag in
            _ = try session.snapshotSet(tag)
            return try Self.folder(of: tag, in: root)
        }
        if json {
            Terminal.write(json: ["mountpoint": .string(path ?? root)])
        } else {
            Terminal.write((path ?? root) + "\n")
        }
    }

    /// The folder of a tag, which has another name where the tag is no file name.
    private static func folder(of tag: String, in root: String) throws -> String {
        func isOf(_ folder: String) -> Bool {
            guard let bytes = try? Files.readAll("\(root)/\(folder)/info.json", limit: 1 << 20) else { return false }
            return (try? JSONParser.parse(bytes))?["tag"]?.stringValue == tag
        }
        // Nearly always it has the tag's name.
        if isOf(tag) { return "\(root)/\(tag)" }
        guard let folder = (try? Files.listDirectory(root))?.first(where: isOf) else {
            throw CommandFailure("The tree at '\(root)' does not show '\(tag)': see 'coldframe snapshot list'")
        }
        return "\(root)/\(folder)"
    }

    private static func absolute(_ path: String) -> String { (try? Files.absolutePath(path)) ?? path }

    private static func defaultMountpoint(_ name: String) throws -> String {
        let path = "\(AgentLocator.base)/\(name)/tree"
        do {
            try Files.mkdirWithParents(path)
        } catch {
            throw CommandFailure("Could not make folder '\(path)': \(error.reason)")
        }
        return path
    }
}

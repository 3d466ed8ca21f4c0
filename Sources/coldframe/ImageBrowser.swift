import LinuxSystem
import QMPClient
import QMPWire

/// Shows the snapshots of an image file without an agent: starts one of its own, with no name and no state, and ends it
/// at Ctrl-C.
struct ImageBrowser {
    let image: String
    let mountpoint: String?
    let forceShare: Bool
    /// Folders into which a backing file that the image names is followed.
    let allowedBackingFolders: [String]
    let isJSON: Bool

    func run() throws {
        let interrupts = try InterruptFlag()
        let scratch = try Files.temporaryDirectory(prefix: "coldframe-browse")
        defer { try? Files.removeTree(scratch) }
        let root = try mountpoint.map { try Files.absolutePath($0) } ?? scratch + "/tree"
        if mountpoint == nil { try Files.mkdir(root) }

        let socket = scratch + "/qmp.sock"
        let agent = try startAgent(socket: socket, log: scratch + "/log")
        defer { try? ProcessControl.signal(agent, Signals.terminate) }
        let session = try connect(to: agent, socket: socket, log: scratch + "/log")
        try session.execute(
            "blockdev-add",
            [
                "driver": "qcow2", "node-name": "disk", "read-only": true, "force-share": .bool(forceShare),
                "file": ["driver": "file", "filename": .string(try Files.absolutePath(image))],
            ])
        let snapshots = try session.execute("query-snapshots").arrayValue ?? []
        guard !snapshots.isEmpty else {
            throw CommandFailure("'\(image)' has no internal snapshots; 'qemu-img snapshot -l' agrees")
        }
        try session.execute("snapshot-export-add", ["id": "tree", "mountpoint": .string(root)])
        announce(root, snapshots)
        while interrupts.count == 0, (try? ProcessControl.waitNonBlocking(agent)) == .some(nil) {
            SystemThread.sleep(milliseconds: 100)
        }
        // The agent unmounts before it ends.
        _ = try? session.execute("quit")
        _ = try? ProcessControl.wait(agent)
    }

    private func announce(_ root: String, _ snapshots: [JSONValue]) {
        let tags = snapshots.compactMap { $0["tag"]?.stringValue }
        if isJSON {
            Terminal.write(json: ["mountpoint": .string(root), "snapshots": .array(tags.map { .string($0) })])
        } else {
            Terminal.write("\(root)\n")
            for tag in tags { Terminal.write("  \(tag)/disk/disk.raw\n") }
            Terminal.writeError("Press Ctrl-C to unmount\n")
        }
    }

    private func startAgent(socket: String, log: String) throws -> Int32 {
        let own = Files.parentDirectory(of: try Files.canonicalPath("/proc/self/exe"))
        let output = try Descriptor.open(log, [.writeOnly, .create])
        let input = try Descriptor.open("/dev/null", .readOnly)
        return try ProcessControl.spawn(
            SpawnRequest(
                path: own + "/coldframed",
                arguments: [
                    "--chardev", "socket,id=qmp,server=on,wait=off,path=\(socket)",
                    "--monitor", "chardev=qmp",
                    // Also if this process is killed: nobody else would unmount the tree.
                    "--end-with-parent", "\(ProcessControl.currentPID)",
                ] + allowedBackingFolders.flatMap { ["--allow-backing", $0] },
                descriptors: [(input.raw, 0), (output.raw, 1), (output.raw, 2)], newSession: true))
    }

    private func connect(to agent: Int32, socket: String, log: String) throws -> Session {
        for _ in 0..<500 {
            if Files.exists(socket), let session = try? Session(socket: socket, title: "browse") { return session }
            if (try? ProcessControl.waitNonBlocking(agent)) != .some(nil) { break }
            SystemThread.sleep(milliseconds: 10)
        }
        let words = (try? Files.readAll(log, limit: 4096)) ?? []
        throw CommandFailure("The agent did not start: \(String(decoding: words, as: UTF8.self))")
    }
}

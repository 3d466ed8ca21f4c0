import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

@testable import AgentCore

/// What a backup that has succeeded must hold.
struct SimulatedBackup {
    let job: String
    let image: String
    /// What was known of the disk when it began.
    let content: [Int: UInt8]
}

/// Jobs of a simulation that open their targets by file name.
extension JobSimulation {
    /// With a name of its own the target is an image like any other when the disk has gone on to it.
    func driveMirror() async throws {
        let (target, more) = try newTarget()
        var arguments = more
        arguments["node-name"] = .string(target)
        arguments["sync"] = "full"
        if oneIn(2) { arguments["copy-mode"] = "write-blocking" }
        let (asked, all) = newMirror(arguments)
        if try await execute("drive-mirror", all, starting: [asked]) {
            opened.insert(target)
            driven.append(target)
        }
    }

    func driveBackup() async throws {
        let (target, more) = try newTarget()
        let (asked, arguments) = newBackup(into: more)
        // The target would name the quorum as its backing image, in words that qemu-img opens where all of it may be written only.
        if quorums[arguments["device"]?.stringValue ?? ""] != nil, arguments["sync"] == "none" { return }
        let expected = expectedBackup(asked, arguments, in: target)
        if try await execute("drive-backup", arguments, starting: [asked]) {
            opened.insert(target)
            backups += expected
        }
    }

    /// Nothing is known where an error is ignored, or not all is copied.
    func expectedBackup(_ asked: AskedJob, _ arguments: JSONObject, in target: String) -> [SimulatedBackup] {
        guard arguments["sync"] == "full", asked.onRead != .ignore, asked.onWrite != .ignore,
            let disk = disks.first(where: { $0.stands(on: arguments["device"]?.stringValue ?? "") })
        else { return [] }
        return [SimulatedBackup(job: asked.id, image: target, content: disk.content)]
    }

    /// A file that is there, or one that the job makes.
    private func newTarget() throws -> (name: String, arguments: JSONObject) {
        let name: String
        let isThere = oneIn(2)
        if isThere {
            name = try makeImage()
        } else {
            imageCount += 1
            name = "n\(imageCount)"
        }
        return (
            name,
            [
                "target": .string(path(of: name)), "format": "qcow2",
                "mode": isThere ? "existing" : "absolute-paths",
            ]
        )
    }

    /// Nodes that jobs have opened are images as soon as they are there, and none any more when they went with their last user.
    func followNodes() {
        images.removeAll { node($0) == nil }
        for name in driven where node(name) != nil && !images.contains(name) { images.append(name) }
        quorums = quorums.filter { node($0.key) != nil }
        snapshots.removeAll { node($0.image) == nil }
    }

    func compareFile(of backup: SimulatedBackup) async throws {
        guard watch.histories[backup.job]?.fate == .succeeded else { return }
        let layer = try await BlockingPool.shared.run { [tools, path = path(of: backup.image)] in
            try ImageLayer(paths: [path], isInUse: false, tools: tools)
        }
        for (index, value) in backup.content where (layer.blocks[index] ?? 0) != value {
            complain("in the files block \(index) of the backup '\(backup.image)' is not \(value)")
        }
    }
}

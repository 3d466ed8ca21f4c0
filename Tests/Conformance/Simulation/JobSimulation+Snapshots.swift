import ColdframeKit
import LinuxSystem
import QMPWire

@testable import AgentCore

/// An internal snapshot of an image, with what is known of the disk at its moment.
struct SimulatedSnapshot {
    let image: String
    let tag: String
    var content: [Int: UInt8]
}

/// Internal snapshots of a simulation: each shows what was there at its moment, whatever happens to the image, until it is deleted.
extension JobSimulation {
    /// A request that is under way may be in it or not.
    func expectedSnapshot() -> SimulatedSnapshot {
        let image = usedImage()
        snapshotCount += 1
        let tag = oneIn(8) ? snapshots.randomElement(using: &chance)?.tag : nil
        return SimulatedSnapshot(
            image: image, tag: tag ?? "s\(snapshotCount)",
            content: disks.first { $0.stands(on: image) }?.content ?? [:])
    }

    func makeSnapshot() async throws {
        let snapshot = expectedSnapshot()
        let isMade = try await execute(
            "blockdev-snapshot-internal-sync", ["device": .string(snapshot.image), "name": .string(snapshot.tag)])
        if isMade { snapshots.append(snapshot) }
        compareSnapshots(of: snapshot.image)
    }

    func deleteSnapshot() async throws {
        guard let snapshot = snapshots.randomElement(using: &chance) else { return }
        let isDeleted = try await execute(
            "blockdev-snapshot-delete-internal-sync",
            ["device": .string(snapshot.image), "name": .string(snapshot.tag)])
        let isLeft = listed(in: snapshot.image)?.contains(snapshot.tag) ?? true
        if isDeleted, view?.snapshot.tag == snapshot.tag, view?.snapshot.image == snapshot.image {
            complain("snapshot '\(snapshot.tag)' of '\(snapshot.image)' is deleted, and somebody reads it")
        }
        // One that has begun to go and met an error goes sooner or later.
        if isDeleted || !isLeft {
            snapshots.removeAll { $0.image == snapshot.image && $0.tag == snapshot.tag }
        }
        compareSnapshots(of: snapshot.image)
    }

    private func listed(in image: String) -> [String]? {
        (node(image)?.block.driver as? any SnapshotBearing)?.snapshots.map(\.name)
    }

    func compareSnapshots(of image: String) {
        guard let listed = listed(in: image) else { return }
        let expected = snapshots.filter { $0.image == image }.map(\.tag)
        if listed.sorted() != expected.sorted() { complain("'\(image)' has the snapshots \(listed), not \(expected)") }
    }

    /// Opens a snapshot as a node and looks at it; a later look closes it again, if it is there still.
    func lookAtSnapshot() async throws {
        if let (name, snapshot) = view {
            try await look(at: snapshot, in: name)
            if try await execute("blockdev-del", ["node-name": .string(name)]) { view = nil }
            return
        }
        guard let snapshot = snapshots.randomElement(using: &chance) else { return }
        let name = "v\(commandCount)"
        let isOpen = try await execute(
            "blockdev-add",
            [
                "driver": "snapshot", "node-name": .string(name), "file": .string(snapshot.image),
                "tag": .string(snapshot.tag),
            ])
        guard isOpen else { return }
        view = (name, snapshot)
        try await look(at: snapshot, in: name)
    }

    private func look(at opened: SimulatedSnapshot, in name: String) async throws {
        // What is known of it may be less by now.
        guard let node = node(name),
            let known = snapshots.first(where: { $0.image == opened.image && $0.tag == opened.tag })
        else { return }
        let block = node.block
        for (index, value) in known.content.sorted(by: { $0.key < $1.key }) {
            let offset = UInt64(index * SimulatedDisk.blockByteCount)
            let bytes = await BlockingPool.shared.run { () -> [UInt8]? in
                var bytes = [UInt8](repeating: 0, count: SimulatedDisk.blockByteCount)
                let isRead = (try? bytes.withUnsafeMutableBytes { try block.read(into: $0, at: offset) }) != nil
                return isRead ? bytes : nil
            }
            // One that meets an injected error may be read another time.
            guard let bytes else { continue }
            if !bytes.allSatisfy({ $0 == value }) {
                let words = "snapshot '\(known.tag)' of '\(known.image)'"
                complain("block \(index) of \(words) holds \(bytes[0]), not \(value)")
            }
        }
    }

    /// Somebody writes to an image below that of a snapshot, as he may while nobody uses that: what shows there is not known.
    func forgetSnapshotsOverWriters() {
        for index in snapshots.indices {
            let below = node(snapshots[index].image)?.shown.dropFirst() ?? []
            let isWritten = below.contains { node in
                node.uses.contains { $0.parent == nil && $0.permissions.contains(.write) }
            }
            if isWritten { snapshots[index].content = [:] }
        }
    }

    /// At the end, when all files are closed.
    func compareFile(of snapshot: SimulatedSnapshot, _ paths: [String]) async throws {
        let layer = try await BlockingPool.shared.run { [tools] in
            try ImageLayer(snapshot: snapshot.tag, paths: paths, blocks: snapshot.content.keys.sorted(), tools: tools)
        }
        for (index, value) in snapshot.content {
            // qemu-img shows as much of a snapshot as the disk is long now.
            guard let found = layer.blocks[index], found != value else { continue }
            complain("in the files block \(index) of snapshot '\(snapshot.tag)' of '\(snapshot.image)' is not \(value)")
        }
    }
}

extension GraphNode {
    /// The node and all whose content shows through it, the children of quorums among them.
    var shown: [GraphNode] {
        chain.flatMap { node in
            guard node.block.driver.driverName == "quorum" else { return [node] }
            return [node] + node.children.compactMap(\.node).flatMap(\.shown)
        }
    }
}

import ColdframeKit
import LinuxSystem
import QMPWire

@testable import AgentCore

/// Nodes of a simulation that are no images of their own: quorums, and filters between an image and its file.
extension JobSimulation {
    /// Over two or three images that nobody uses. What is not written through it may be anything.
    func addQuorum() async throws {
        var idle = images.filter { name in node(name).map { $0.uses.isEmpty && !$0.block.isReadOnly } ?? false }
        guard quorums.count < 2, idle.count > 1 else { return }
        var children: [JSONValue] = []
        for _ in 0..<min(idle.count, oneOf([2, 3, 3])) {
            children.append(.string(idle.remove(at: chance.next(below: idle.count))))
        }
        quorumCount += 1
        let (name, threshold) = ("q\(quorumCount)", oneOf([1, 2, 2, children.count]))
        var options: JSONObject = [
            "driver": "quorum", "node-name": .string(name), "vote-threshold": .integer(Int64(threshold)),
            "children": .array(children),
        ]
        if oneIn(4) { options["read-pattern"] = "fifo" }
        if oneIn(4) { options["rewrite-corrupted"] = true }
        if try await execute("blockdev-add", options) { quorums[name] = threshold }
    }

    /// A child goes, perhaps one of the few that have all, or another one comes, which may hold anything.
    func changeQuorum() async throws {
        guard let name = quorums.keys.sorted().randomElement(using: &chance), let quorum = node(name) else { return }
        var arguments: JSONObject = ["parent": .string(name)]
        if oneIn(2) {
            arguments["child"] = .string(quorum.children.randomElement(using: &chance)?.role ?? "children.0")
        } else {
            arguments["node"] = .string(idleImage())
        }
        guard try await execute("x-blockdev-change", arguments) else { return }
        for disk in disks where disk.shows(name) { disk.forgetAll() }
    }

    /// How many children a quorum must agree with a disk that stands on it, and the images of each of its children; nil where one
    /// of them is on a quorum too.
    func votes(of disk: SimulatedDisk) -> (threshold: Int, children: [[String]])? {
        guard let node = disk.use.node?.withoutFilters, let threshold = quorums[node.name] else { return nil }
        let chains = node.children.compactMap(\.node).map { $0.layers.map(\.name) }
        guard !chains.joined().contains(where: { quorums[$0] != nil }) else { return nil }
        return (threshold, chains.map { $0.map(path) })
    }

    /// A filter comes between an image and its file, or goes. Not above `blkdebug`, which hears of the format's steps no more then, and
    /// would go on as it has begun.
    func changeFilter() async throws {
        let name = image()
        guard let node = node(name), let file = node.child("file"), var options = node.currentOptions?.object else {
            return
        }
        if let below = file.filtered?.node, file.name.hasPrefix("t") {
            options["file"] = .string(below.name)
            guard try await execute("blockdev-reopen", ["options": [.object(options)]]) else { return }
            try await execute("blockdev-del", ["node-name": .string(file.name)])
            return
        }
        guard file.block.driver.driverName == "file" else { return }
        if filterCount == 0 { try await execute("object-add", ["qom-type": "throttle-group", "id": "tg"]) }
        filterCount += 1
        let filter = "t\(filterCount)"
        guard
            try await execute(
                "blockdev-add",
                [
                    "driver": "throttle", "node-name": .string(filter), "throttle-group": "tg",
                    "file": .string(file.name),
                ])
        else { return }
        options["file"] = .string(filter)
        if try await !execute("blockdev-reopen", ["options": [.object(options)]]) {
            try await execute("blockdev-del", ["node-name": .string(filter)])
        }
    }
}

extension SplitMix: RandomNumberGenerator {
    mutating func next() -> UInt64 { UInt64(next(below: 1 << 32)) << 32 | UInt64(next(below: 1 << 32)) }
}

import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

@testable import AgentCore

/// What a simulation asks of its agent: anything, of anybody, in any state. Here what changes the graph.
extension JobSimulation {
    static let imageLimit = 6

    func step() async throws {
        switch chance.next(below: 76) {
        case 0...1: try await addImage()
        case 2: try await remove(oneOf(images + quorums.keys.sorted()))
        case 3...6: await addDisk()
        case 7...16: try await write()
        case 17...18: try await look()
        case 19...22: try await putOverlay(idleImage(), above: usedImage())
        case 23: try await reopen(image())
        case 24: try await resize(image())
        case 25...26: try await stream()
        case 27...29: try await commit()
        case 30...33: try await mirror()
        case 34...36: try await backup()
        case 37: try await createImage()
        case 38: try await amend()
        case 39...42: try await transaction()
        case 43...45: try await changeBitmap()
        case 46...56: try await askOfJob()
        case 57...58: try await addQuorum()
        case 59: try await changeQuorum()
        case 60...62: try await makeSnapshot()
        case 63: try await deleteSnapshot()
        case 64...65: try await lookAtSnapshot()
        case 66: try await driveMirror()
        case 67...68: try await driveBackup()
        case 69...70: try await changeFilter()
        default:
            clock.advance(nanoseconds: oneOf([1, 50, 200, 5000]) * 1_000_000)
            try await Task.sleep(nanoseconds: oneOf([0, 1, 2]) * 1_000_000)
        }
    }

    func oneIn(_ count: Int) -> Bool { chance.next(below: count) == 0 }

    func oneOf<T>(_ choices: [T]) -> T { choices[chance.next(below: choices.count)] }

    /// One that nobody uses, as a rule.
    func idleImage() -> String {
        let idle = (images + quorums.keys.sorted()).filter { name in
            node(name).map { $0.uses.isEmpty && !$0.block.isReadOnly } ?? false
        }
        return idle.isEmpty || oneIn(6) ? image() : oneOf(idle)
    }

    /// One that a disk shows, as a rule.
    func usedImage() -> String {
        let used = (images + quorums.keys.sorted()).filter { name in disks.contains { $0.stands(on: name) } }
        return used.isEmpty || oneIn(6) ? image() : oneOf(used)
    }

    /// The file of an image, as the format meets it.
    func file(of image: String) -> JSONValue {
        let rules = FaultRules(&chance)
        if isCalm || oneIn(3) { return ["driver": "file", "filename": .string(path(of: image))] }
        return rules.file(path(of: image))
    }

    /// An empty one, or one that a job has made.
    func addImage() async throws {
        guard images.count < Self.imageLimit else { return }
        var name: String?
        for (job, image) in newImages.sorted(by: { $0.key < $1.key }) {
            guard let fate = watch.histories[job]?.fate else { continue }
            newImages[job] = nil
            if fate == .succeeded { name = image }
        }
        let made = try name ?? makeImage()
        let backing: JSONValue = !images.isEmpty && oneIn(2) ? .string(image()) : .null
        let isAdded = try await execute(
            "blockdev-add",
            [
                "driver": "qcow2", "node-name": .string(made), "discard": "unmap", "backing": backing,
                "file": file(of: made),
            ])
        if isAdded {
            images.append(made)
            opened.insert(made)
        }
        if images.isEmpty { try await addImage() }
    }

    private func remove(_ name: String) async throws {
        // Those that a job has opened go by themselves.
        guard images.count(where: { node($0)?.isMonitorOwned ?? false }) > 2 else { return }
        try await execute("blockdev-del", ["node-name": .string(name)])
    }

    private func reopen(_ name: String) async throws {
        guard let object = node(name)?.currentOptions?.object else { return }
        var options = object
        options["read-only"] = .bool(oneIn(4))
        try await execute("blockdev-reopen", ["options": [.object(options)]])
    }

    /// A disk keeps what is before the end of both sizes; what is new reads as zeros.
    private func resize(_ name: String) async throws {
        guard let node = node(name) else { return }
        let blockCount = oneOf([Self.blockCount, Self.blockCount, SimulatedDisk.blockCountLimit, 20, 12])
        let before = Int(node.block.byteCount) / SimulatedDisk.blockByteCount
        let isDone = try await execute(
            "block_resize",
            [
                "node-name": .string(name),
                "size": .integer(Int64(blockCount * SimulatedDisk.blockByteCount)),
            ])
        for disk in disks where disk.shows(name) {
            let isKnown = isDone && disk.stands(on: name)
            for index in min(before, blockCount)..<SimulatedDisk.blockCountLimit {
                disk.expect(isKnown && index < blockCount ? 0 : nil, in: index)
            }
        }
    }

    // MARK: Disks

    private func addDisk() async {
        guard disks.count < 4, let node = node(idleImage()) else { return }
        guard let disk = SimulatedDisk(name: "x\(log.count)", on: node, sharesSize: oneIn(2)) else { return }
        note("\(disk.name) on \(node.name)")
        disks.append(disk)
    }

    /// Half of the writes are over before the next command.
    private func write() async throws {
        guard !disks.isEmpty else { return }
        let disk = oneOf(disks)
        let (value, index) = (UInt8(chance.next(below: 255) + 1), chance.next(below: Self.blockCount))
        let words = "write \(value) to block \(index) of \(disk.name) on \(disk.nodeName ?? "")"
        let number = commandCount
        let isBegun = disk.beginWrite(value, to: index) { [weak self, weak disk] isWritten in
            self?.note("\(words): \(isWritten)")
            if isWritten, self?.commandCount == number { disk?.checkBitmaps(at: index) }
        }
        if isBegun, oneIn(2), try await !disk.untilIdle(milliseconds: 20) { note("\(words) waits") }
    }

    // MARK: Overlays

    private func putOverlay(_ overlay: String, above name: String) async throws {
        try await withOverlays([(overlay, name)]) {
            try await execute("blockdev-snapshot", ["node": .string(name), "overlay": .string(overlay)])
        }
    }

    /// Runs what puts overlays above nodes, and has the disks expect what the overlays' own images held before.
    ///
    /// Only where one overlay comes directly below a disk is it known what shows through: otherwise the blocks that it holds
    /// are forgotten.
    func withOverlays(
        _ overlays: [(overlay: String, above: String)], _ body: () async throws -> Bool
    ) async throws {
        var layers: [(overlay: String, layer: ImageLayer?, directly: [SimulatedDisk], below: [SimulatedDisk])] = []
        for (overlay, name) in overlays {
            let layer = try await layer(of: overlay)
            layers.append((overlay, layer, disks.filter { $0.stands(on: name) }, disks.filter { $0.shows(name) }))
        }
        guard try await body() else { return }
        for (overlay, layer, directly, below) in layers {
            for disk in disks {
                if let layer, overlays.count == 1, disk.stands(on: overlay), directly.contains(where: { $0 === disk }) {
                    for (index, value) in layer.blocks { disk.expect(value, in: index) }
                } else if disk.shows(overlay) || below.contains(where: { $0 === disk }) {
                    // Of an overlay that is in use already nothing is known.
                    for index in layer.map({ Array($0.blocks.keys) }) ?? Array(0..<SimulatedDisk.blockCountLimit) {
                        disk.expect(nil, in: index)
                    }
                }
            }
        }
    }

    /// What a node's own image holds, where it may become an overlay; nil otherwise.
    private func layer(of name: String) async throws -> ImageLayer? {
        guard images.contains(name), let node = node(name), node.uses.isEmpty, node.backing == nil else { return nil }
        let path = path(of: name)
        return try await BlockingPool.shared.run { [tools] in
            try ImageLayer(paths: [path], isInUse: true, tools: tools)
        }
    }
}

import ColdframeKit
import QMPWire

@testable import AgentCore

/// What a simulation asks of its agent: anything, of anybody, in any state.
extension JobSimulation {
    func step() async throws {
        switch chance.next(below: 25) {
        case 0: try await addImage()
        case 1: try await remove(image())
        case 2, 3: await addDisk()
        case 4...8: try await write()
        case 9: try await look()
        case 10: try await putOverlay(image(), above: image())
        case 11: try await stream()
        case 12: try await commit()
        case 13: try await mirror()
        case 14: try await backup()
        case 15: try await execute("job-complete", ["id": .string(job())])
        case 16: try await execute("job-finalize", ["id": .string(job())])
        case 17: try await execute("job-dismiss", ["id": .string(job())])
        case 18: try await execute("job-cancel", ["id": .string(job())])
        case 19: try await execute("block-job-cancel", ["device": .string(job())])
        case 20: try await execute(oneIn(2) ? "job-pause" : "job-resume", ["id": .string(job())])
        case 21: try await reopen(image())
        case 22: try await transaction()
        case 23: try await execute("block-job-set-speed", ["device": .string(job()), "speed": speed()])
        default:
            clock.advance(nanoseconds: [1, 50, 200, 5000][chance.next(below: 4)] * 1_000_000)
            try await Task.sleep(nanoseconds: UInt64(chance.next(below: 3)) * 1_000_000)
        }
    }

    func oneIn(_ count: Int) -> Bool { chance.next(below: count) == 0 }

    func speed() -> JSONValue { .integer([0, 1, 1 << 18, 1 << 22][chance.next(below: 4)]) }

    func base(_ member: String) -> JSONObject { oneIn(2) ? [member: .string(image())] : [:] }

    /// One of the last, as a rule, which may be gone.
    private func job() -> String { "j\(max(1, jobCount - chance.next(below: 6)))" }

    private func addDisk() async {
        guard disks.count < 4, let node = node(image()) else { return }
        guard let disk = SimulatedDisk(name: "x\(log.count)", on: node) else { return }
        note("\(disk.name) on \(node.name)")
        disks.append(disk)
    }

    /// Half of the writes are over before the next command.
    private func write() async throws {
        guard !disks.isEmpty else { return }
        let disk = disks[chance.next(below: disks.count)]
        let (value, index) = (UInt8(chance.next(below: 255) + 1), chance.next(below: 16))
        let words = "write \(value) to block \(index) of \(disk.name) on \(disk.nodeName ?? "")"
        guard disk.beginWrite(value, to: index, done: { [weak self] in self?.note("\(words): \($0)") }) else { return }
        if oneIn(2), try await !disk.untilIdle(milliseconds: 20) { note("\(words) waits") }
    }

    private func remove(_ name: String) async throws {
        guard images.count > 2 else { return }
        try await execute("blockdev-del", ["node-name": .string(name)])
        if node(name) == nil { images.removeAll { $0 == name } }
    }

    private func reopen(_ name: String) async throws {
        guard let object = node(name)?.currentOptions?.object else { return }
        var options = object
        options["read-only"] = .bool(oneIn(2))
        try await execute("blockdev-reopen", ["options": [.object(options)]])
    }

    private func putOverlay(_ overlay: String, above name: String) async throws {
        try await withOverlays([(overlay, name)]) {
            try await execute("blockdev-snapshot", ["node": .string(name), "overlay": .string(overlay)])
        }
    }

    private func transaction() async throws {
        var actions: [JSONValue] = []
        var overlays: [(overlay: String, above: String)] = []
        var jobs: [AskedJob] = []
        for number in 0...chance.next(below: 3) {
            let bitmap = JSONValue.string("b\(chance.next(below: 3))")
            switch chance.next(below: 4) {
            case 0:
                actions.append(["type": "block-dirty-bitmap-add", "data": ["node": .string(image()), "name": bitmap]])
            case 1:
                let (overlay, name) = (image(), image())
                overlays.append((overlay, name))
                actions.append([
                    "type": "blockdev-snapshot", "data": ["node": .string(name), "overlay": .string(overlay)],
                ])
            case 2:
                let (asked, data) = newBackup()
                jobs.append(asked)
                actions.append(["type": "blockdev-backup", "data": .object(data)])
            default:
                if number > 0, oneIn(2) { actions.append(["type": "abort", "data": [:]]) }
            }
        }
        try await withOverlays(overlays) {
            try await execute("transaction", ["actions": .array(actions)], starting: jobs)
        }
    }

    /// Runs what puts overlays above nodes, and has the disks expect what the overlays' own images held before.
    ///
    /// Only where one overlay comes directly below a disk is it known what shows through: otherwise the blocks that it holds
    /// are forgotten.
    private func withOverlays(
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
                    for index in layer.map({ Array($0.blocks.keys) }) ?? Array(disk.blocks) {
                        disk.expect(nil, in: index)
                    }
                }
            }
        }
    }
}

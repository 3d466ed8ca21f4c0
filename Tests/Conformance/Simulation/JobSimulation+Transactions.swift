import ColdframeKit
import QAPI
import QMPWire

@testable import AgentCore

/// Transactions and dirty bitmaps of a simulation.
extension JobSimulation {
    /// Up to four actions, which conclude together or not.
    func transaction() async throws {
        let isGrouped = oneIn(3)
        groupCount += 1
        var actions: [JSONValue] = []
        var overlays: [(overlay: String, above: String)] = []
        var jobs: [AskedJob] = []
        var made: [SimulatedSnapshot] = []
        for _ in 0...chance.next(below: 3) {
            // Only jobs can be grouped; anything else is refused.
            switch isGrouped && !oneIn(8) ? 0 : chance.next(below: 6) {
            case 0, 1:
                var (asked, data) = newBackup()
                if isGrouped { asked.group = groupCount }
                jobs.append(asked)
                actions.append(["type": "blockdev-backup", "data": .object(data)])
            case 2:
                let (overlay, name) = (idleImage(), usedImage())
                overlays.append((overlay, name))
                actions.append([
                    "type": "blockdev-snapshot", "data": ["node": .string(name), "overlay": .string(overlay)],
                ])
            case 3:
                let snapshot = expectedSnapshot()
                made.append(snapshot)
                actions.append([
                    "type": "blockdev-snapshot-internal-sync",
                    "data": ["device": .string(snapshot.image), "name": .string(snapshot.tag)],
                ])
            default:
                let (type, data) = bitmapChange()
                actions.append(["type": .string(type), "data": .object(data)])
            }
        }
        if oneIn(5) { actions.insert(["type": "abort", "data": [:]], at: chance.next(below: actions.count + 1)) }
        var arguments: JSONObject = ["actions": .array(actions)]
        if isGrouped || oneIn(2) {
            arguments["properties"] = ["completion-mode": isGrouped ? "grouped" : "individual"]
        }
        try await withOverlays(overlays) {
            let isDone = try await execute("transaction", arguments, starting: jobs)
            if isDone { snapshots += made }
            return isDone
        }
        for snapshot in made { compareSnapshots(of: snapshot.image) }
    }

    func changeBitmap() async throws {
        let (type, data) = bitmapChange()
        try await execute(type, data)
    }

    func bitmap() -> String { oneOf(["b1", "b2"]) }

    /// A command, which is an action of transactions as well.
    private func bitmapChange() -> (String, JSONObject) {
        let kind = oneOf(["add", "add", "add", "remove", "clear", "enable", "disable", "merge"])
        var data: JSONObject = ["node": .string(usedImage())]
        switch kind {
        case "merge":
            data["target"] = .string(bitmap())
            data["bitmaps"] = oneIn(2) ? [.string(bitmap())] : [["node": .string(image()), "name": .string(bitmap())]]
        case "add":
            data["name"] = .string(bitmap())
            if oneIn(3) { data["persistent"] = true }
            if oneIn(3) { data["granularity"] = .integer(oneOf([512, 4096, 65536, 1 << 20])) }
            if oneIn(4) { data["disabled"] = true }
        default: data["name"] = .string(bitmap())
        }
        return ("block-dirty-bitmap-\(kind)", data)
    }
}

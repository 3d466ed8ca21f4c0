import ColdframeKit
import QMPWire

/// Moves the state of a stopped guest between QEMU and a small qcow2 file: the file is added as a node, and QEMU's own
/// `snapshot-load` or `snapshot-save` works on it and on nothing else. The vCPUs stay stopped.
@AgentActor
struct StateTransfer {
    enum Direction: String {
        case load = "snapshot-load"
        case save = "snapshot-save"
    }

    static let jobPrefix = "coldframe-state-"
    let direction: Direction
    let monitor: QEMUMonitor
    /// Tells this transfer from others of the same guest.
    let number: Int

    /// On a throw, and after a load that went well, QEMU still has the job and the node: `clear` takes them away.
    func run(imagePath: String, tag: String) async throws {
        let node = "\(Self.jobPrefix)\(number)"
        try await monitor.execute(
            "blockdev-add",
            [
                "driver": "qcow2", "node-name": .string(node),
                "file": ["driver": "file", "filename": .string(imagePath)],
            ])
        try await monitor.execute(
            direction.rawValue,
            ["job-id": .string(node), "tag": .string(tag), "vmstate": .string(node), "devices": [.string(node)]])
        if direction == .load { try FaultPoint.loadFeed.pass() }
        if let error = try await Self.end(of: node, monitor) {
            throw ColdframeError(.peer, "QEMU's \(direction.rawValue) failed: \(error)")
        }
    }

    /// Waits for a job to conclude; its error, or nil.
    private static func end(of jobID: String, _ monitor: QEMUMonitor) async throws -> String? {
        while true {
            let jobs = try await monitor.execute("query-jobs").arrayValue ?? []
            guard let job = jobs.first(where: { $0["id"]?.stringValue == jobID }) else {
                throw ColdframeError(.peer, "QEMU's job '\(jobID)' has vanished")
            }
            if job["status"]?.stringValue == "concluded" { return job["error"]?.stringValue }
            try await Task.sleep(nanoseconds: 5_000_000)
        }
    }

    /// What came of the load that an earlier agent had begun.
    static func outcome(_ monitor: QEMUMonitor) async throws -> InterruptedLoad {
        let jobs = try await monitor.execute("query-jobs").arrayValue ?? []
        let load = jobs.first {
            $0["id"]?.stringValue?.hasPrefix(jobPrefix) ?? false && $0["type"]?.stringValue == Direction.load.rawValue
        }
        guard let id = load?["id"]?.stringValue else { return .notBegun }
        if let error = try await end(of: id, monitor) { return .failed(error) }
        return .loaded
    }

    /// Takes away the jobs and nodes of all transfers, which have come to their ends.
    static func clear(_ monitor: QEMUMonitor) async throws {
        for job in try await monitor.execute("query-jobs").arrayValue ?? [] {
            guard let id = job["id"]?.stringValue, id.hasPrefix(jobPrefix) else { continue }
            try await monitor.execute("job-dismiss", ["id": .string(id)])
        }
        let nodes = try await monitor.execute("query-named-block-nodes", ["flat": true]).arrayValue ?? []
        for name in nodes.compactMap({ $0["node-name"]?.stringValue }) where name.hasPrefix(jobPrefix) {
            try await monitor.execute("blockdev-del", ["node-name": .string(name)])
        }
    }
}

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

    func run(imagePath: String, tag: String) async throws {
        let node = "\(Self.jobPrefix)\(number)"
        try await monitor.execute(
            "blockdev-add",
            [
                "driver": "qcow2", "node-name": .string(node),
                "file": ["driver": "file", "filename": .string(imagePath)],
            ])
        var failure: (any Error)?
        do {
            try await runJob(node: node, tag: tag)
        } catch {
            failure = error
        }
        do {
            try await monitor.execute("blockdev-del", ["node-name": .string(node)])
        } catch {
            failure = failure ?? error
        }
        if let failure { throw failure }
    }

    private func runJob(node: String, tag: String) async throws {
        try await monitor.execute(
            direction.rawValue,
            ["job-id": .string(node), "tag": .string(tag), "vmstate": .string(node), "devices": [.string(node)]])
        while true {
            let jobs = try await monitor.execute("query-jobs").arrayValue ?? []
            guard let job = jobs.first(where: { $0["id"]?.stringValue == node }) else {
                throw ColdframeError(.peer, "QEMU's job '\(direction.rawValue)' has vanished")
            }
            if job["status"]?.stringValue == "concluded" {
                try await monitor.execute("job-dismiss", ["id": .string(node)])
                if let error = job["error"]?.stringValue {
                    throw ColdframeError(.peer, "QEMU's \(direction.rawValue) failed: \(error)")
                }
                return
            }
            try await Task.sleep(nanoseconds: 5_000_000)
        }
    }
}

import ColdframeKit
import QMPWire

/// Puts a stored state into the running QEMU: a small qcow2 file is added as a node, and QEMU's own `snapshot-load` reads
/// from it. The vCPUs are stopped, and stay so.
@AgentActor
struct StateLoading {
    static let jobPrefix = "coldframe-load-"
    let monitor: QEMUMonitor
    /// Tells this load from others of the same guest.
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
            try await load(node: node, tag: tag)
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

    private func load(node: String, tag: String) async throws {
        try await monitor.execute(
            "snapshot-load",
            ["job-id": .string(node), "tag": .string(tag), "vmstate": .string(node), "devices": [.string(node)]])
        while true {
            let jobs = try await monitor.execute("query-jobs").arrayValue ?? []
            guard let job = jobs.first(where: { $0["id"]?.stringValue == node }) else {
                throw ColdframeError(.peer, "QEMU's job that loads the state has vanished")
            }
            if job["status"]?.stringValue == "concluded" {
                try await monitor.execute("job-dismiss", ["id": .string(node)])
                if let error = job["error"]?.stringValue {
                    throw ColdframeError(.peer, "QEMU could not load the state: \(error)")
                }
                return
            }
            try await Task.sleep(nanoseconds: 5_000_000)
        }
    }
}

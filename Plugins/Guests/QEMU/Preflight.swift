import ColdframeKit
import QMPWire

/// Finds everything that forbids a capture, all of it at once, without changing anything.
@AgentActor
struct Preflight {
    let monitor: QEMUMonitor
    let command: [String]
    /// Nodes that the agent serves.
    let disks: Set<String>

    func blockers(for way: CaptureWay) async throws -> [String] {
        var blockers: [String] = []
        let status = try await monitor.execute("query-status")["status"]?.stringValue ?? "unknown"
        if way != .paused, status != "running" {
            blockers.append("The guest is not running (\(status)): only mode 'paused' or 'auto' can save it.")
        }
        blockers += try await migrationBlockers()
        blockers += try await foreignDisks()
        if way == .live { blockers += try await liveBlockers() }
        return blockers
    }

    /// What QEMU itself says against a migration.
    private func migrationBlockers() async throws -> [String] {
        let migration = try await monitor.execute("query-migrate")
        var blockers = (migration["blocked-reasons"]?.arrayValue ?? []).compactMap(\.stringValue)
        if let status = migration["status"]?.stringValue,
            ["setup", "active", "device", "wait-unplug", "pre-switchover", "cancelling", "postcopy-active"].contains(
                status)
        {
            blockers.append("A migration is under way (\(status)).")
        }
        return blockers
    }

    /// Writable disks that the agent does not serve would not be in the snapshot.
    private func foreignDisks() async throws -> [String] {
        let devices = try await monitor.execute("query-block").arrayValue ?? []
        return devices.compactMap { device in
            guard let inserted = device["inserted"], inserted["ro"]?.boolValue == false else { return nil }
            let node = inserted["node-name"]?.stringValue ?? ""
            guard !disks.contains(node) else { return nil }
            let name = [device["device"]?.stringValue, device["qdev"]?.stringValue, node].compactMap { $0 }
                .first { !$0.isEmpty }
            return
                "Disk '\(name ?? "?")' is QEMU's own and writable: its content would not be in the snapshot. Give it to "
                + "the agent, or make it read-only."
        }
    }

    /// What the write protection of pages does not see, and whether QEMU can have it at all.
    private func liveBlockers() async throws -> [String] {
        var blockers: [String] = []
        let backends = try await monitor.execute("query-memdev").arrayValue ?? []
        for backend in backends where backend["share"]?.boolValue ?? false {
            blockers.append("Memory '\(backend["id"]?.stringValue ?? "?")' is shared: others may write to it unseen.")
        }
        for word in command {
            for device in ["vhost-user", "vhost-vdpa", "vfio-", "ivshmem"] where word.hasPrefix(device) {
                blockers.append("Device '\(word)' writes to memory without QEMU.")
            }
        }
        blockers += try await backgroundSnapshotBlockers()
        return blockers
    }

    /// QEMU tells whether it can write-protect pages when it is asked to.
    private func backgroundSnapshotBlockers() async throws -> [String] {
        let capabilities = try await monitor.execute("query-migrate-capabilities").arrayValue ?? []
        guard let now = capabilities.first(where: { $0["capability"]?.stringValue == "background-snapshot" }) else {
            return ["This QEMU has no background snapshots (they came with 6.0)."]
        }
        guard now["state"]?.boolValue != true else { return [] }
        do {
            try await set(backgroundSnapshot: true)
            try await set(backgroundSnapshot: false)
            return []
        } catch {
            return [
                "\(error) It needs userfaultfd: the capability CAP_SYS_PTRACE for QEMU, or "
                    + "vm.unprivileged_userfaultfd=1."
            ]
        }
    }

    private func set(backgroundSnapshot isOn: Bool) async throws(ColdframeError) {
        try await monitor.execute(
            "migrate-set-capabilities",
            ["capabilities": [["capability": "background-snapshot", "state": .bool(isOn)]]])
    }
}

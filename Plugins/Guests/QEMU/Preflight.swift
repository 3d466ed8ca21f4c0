import ColdframeKit
import QMPWire

/// Finds everything that forbids a capture, all of it at once, without changing anything.
@AgentActor
struct Preflight {
    let monitor: QEMUMonitor
    let command: [String]
    /// QEMU's nodes that the agent serves.
    let disks: Set<String>

    func blockers(for way: CaptureWay) async throws -> [String] {
        var blockers: [String] = []
        let status = try await monitor.execute("query-status")["status"]?.stringValue ?? "unknown"
        if way != .paused, status != "running" {
            blockers.append("The guest is not running (\(status)): only mode 'paused' or 'auto' can save it.")
        }
        if status == "inmigrate" {
            blockers.append("QEMU waits for an incoming migration: it has no state yet.")
        }
        blockers += try await migrationBlockers()
        blockers += try await barrierBlockers()
        blockers += try await foreignDisks()
        switch way {
        case .live: blockers += try await liveBlockers()
        case .precopy: blockers += try await precopyBlockers()
        case .paused: break
        }
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

    /// Without the barrier nobody learns the moment of the stop; under record/replay it does not exist.
    private func barrierBlockers() async throws -> [String] {
        var blockers: [String] = []
        let nodes = try await monitor.execute("query-named-block-nodes", ["flat": true]).arrayValue ?? []
        let barrier = nodes.first { $0["node-name"]?.stringValue == QEMUCommandLine.barrierNodeName }
        if barrier?["ro"]?.boolValue != false {
            blockers.append("The barrier node '\(QEMUCommandLine.barrierNodeName)' was taken from QEMU.")
        }
        // A QEMU without TCG has no such command, and no record/replay.
        if let mode = try? await monitor.execute("query-replay")["mode"]?.stringValue, mode != "none" {
            blockers.append("QEMU runs under record/replay (\(mode)).")
        }
        return blockers
    }

    /// Writable disks that the agent does not serve would not be in the snapshot.
    func foreignDisks() async throws -> [String] {
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

    private func precopyBlockers() async throws -> [String] {
        let version = try await monitor.execute("query-version")["qemu"]
        let hasKVM = try await monitor.execute("query-kvm")["enabled"]?.boolValue ?? false
        return Self.precopyBlocker(
            major: version?["major"]?.uint64Value ?? 0, minor: version?["minor"]?.uint64Value ?? 0, hasKVM: hasKVM
        ).map { [$0] } ?? []
    }

    /// Until 9.0 QEMU's TCG does not watch a page again after it has looked which were written: what a vCPU goes on
    /// writing there through its cached translation is never sent, and the state loads into a guest that dies of it.
    static func precopyBlocker(major: UInt64, minor: UInt64, hasKVM: Bool) -> String? {
        guard !hasKVM, major < 9 else { return nil }
        return "QEMU \(major).\(minor) without KVM loses memory that the guest writes during a precopy (mended in 9.0)."
    }

    /// What the write protection of pages does not see, and whether QEMU can have it at all.
    private func liveBlockers() async throws -> [String] {
        var blockers: [String] = []
        let backends = try await monitor.execute("query-memdev").arrayValue ?? []
        for backend in backends where backend["share"]?.boolValue ?? false {
            blockers.append("Memory '\(backend["id"]?.stringValue ?? "?")' is shared: others may write to it unseen.")
        }
        for device in try await deviceNames()
        where ["vhost-user", "vhost-vdpa", "vfio-", "ivshmem"].contains(where: { device.hasPrefix($0) }) {
            blockers.append("Device '\(device)': others than QEMU write to memory unseen.")
        }
        blockers += try await flashBlockers()
        blockers += try await backgroundSnapshotBlockers()
        return blockers
    }

    /// What the command line says, and what was plugged in since.
    private func deviceNames() async throws -> [String] {
        var names = command
        for folder in ["/machine/peripheral", "/machine/peripheral-anon"] {
            let children = try await monitor.execute("qom-list", ["path": .string(folder)]).arrayValue ?? []
            for type in children.compactMap({ $0["type"]?.stringValue }) where type.hasPrefix("child<") {
                let name = String(type.dropFirst("child<".count).dropLast())
                // Devices of the command line are children too: said once is enough.
                if !names.contains(where: { $0.prefix { $0 != "," } == name }) { names.append(name) }
            }
        }
        return names
    }

    /// Flash is ROM to the guest: what it writes there during a capture is not seen by the write protection.
    private func flashBlockers() async throws -> [String] {
        let devices = try await monitor.execute("query-block").arrayValue ?? []
        return devices.compactMap { device in
            let name = device["device"]?.stringValue ?? ""
            let path = device["qdev"]?.stringValue ?? ""
            guard name.hasPrefix("pflash") || path.contains("flash"), device["inserted"]?["ro"]?.boolValue == false
            else { return nil }
            return
                "Flash '\(name.isEmpty ? path : name)' is writable: what the guest writes there would be seen too late."
        }
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
            guard error.message.contains("host kernel") else { return ["\(error)."] }
            return [
                "\(error). It needs userfaultfd: the capability CAP_SYS_PTRACE for QEMU, or "
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

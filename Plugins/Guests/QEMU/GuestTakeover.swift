import ColdframeKit
import LinuxSystem
import Logging
import QMPWire

/// Brings a guest that ran before this agent to where a new one begins: no capture is under way, and QEMU's migration is
/// set up as it was. Its run state is left to the core, which knows from the journal what it was.
@AgentActor
struct GuestTakeover {
    let monitor: QEMUMonitor
    let keeper: KeeperLink

    /// QEMU's own values.
    private static let defaults: JSONObject = ["max-bandwidth": .integer(128 << 20), "downtime-limit": 300]

    /// A live capture that lost every reader (the keeper was killed too) leaves the guest's memory write-protected, and
    /// whoever writes to it waits for good, QEMU's own monitor perhaps among them; it may also be about to. So this looks
    /// again and again while `body` speaks QMP, and once more behind it.
    static func thawing<T>(
        processID: Int32, keeper: KeeperLink, logger: Logger, _ body: @AgentActor () async throws -> T
    ) async throws -> T {
        // The keeper reads it: then it comes to its own end.
        guard try await keeper.status().drainingCount == 0 else { return try await body() }
        let watch = Task {
            while true {
                await thaw(processID, logger)
                try await Task.sleep(nanoseconds: 100_000_000)
            }
        }
        defer { watch.cancel() }
        let result = try await body()
        await thaw(processID, logger)
        return result
    }

    private static func thaw(_ processID: Int32, _ logger: Logger) async {
        do {
            let isThawed = try await BlockingPool.shared.run { () throws(SystemError) in
                guard try UserFaults.areUsed(by: processID) else { return false }
                let ranges = try UserFaults.protectedRanges(of: processID)
                if !ranges.isEmpty { try UserFaults.lift(ranges, of: processID) }
                return !ranges.isEmpty
            }
            guard isThawed else { return }
            logger.warning("a capture that nobody read any more had frozen the guest: its memory is writable again")
        } catch {
            logger.error(
                "a capture may have frozen the guest (process \(processID)); to thaw it needs CAP_SYS_PTRACE: \(error)")
        }
    }

    func settle() async throws {
        // A capture that was armed and not begun: as long as QEMU holds its descriptor the keeper drains and drains.
        // An error says that there is none.
        _ = try? await monitor.execute("closefd", ["fdname": .string(QEMUCapture.descriptorName)])
        try await awaitCaptureEnd()
        try await resetMigration()
    }

    /// The keeper drains or severs what the earlier agent was reading.
    private func awaitCaptureEnd() async throws {
        while true {
            let status = try await monitor.execute("query-migrate")["status"]?.stringValue ?? "none"
            let drainingCount = try await keeper.status().drainingCount
            if drainingCount == 0, ["none", "completed", "failed", "cancelled"].contains(status) { return }
            try await Task.sleep(nanoseconds: 5_000_000)
        }
    }

    /// A capture switches events on, whatever its way; who finds them on finds the rest of its setup too.
    private func resetMigration() async throws {
        let list = try await monitor.execute("query-migrate-capabilities").arrayValue ?? []
        let on = list.filter { $0["state"]?.boolValue == true }.compactMap { $0["capability"]?.stringValue }
        guard on.contains("events") else { return }
        try await monitor.execute(
            "migrate-set-capabilities",
            ["capabilities": .array(on.map { ["capability": .string($0), "state": false] })])
        try await monitor.execute("migrate-set-parameters", Self.defaults)
    }
}

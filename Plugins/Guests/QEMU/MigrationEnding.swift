import ColdframeKit

/// How a migration comes to its end, and its guest to running again.
@AgentActor
struct MigrationEnding {
    let guest: QEMUGuest

    private static let pollNanoseconds: UInt64 = 2_000_000

    /// Suspends until QEMU says that the migration is complete. `check` is asked before each look, and may throw.
    func completion(check: @AgentActor () throws -> Void) async throws {
        while true {
            try check()
            let status = try await guest.monitor.execute("query-migrate")["status"]?.stringValue ?? "none"
            switch status {
            case "completed": return
            case "failed", "cancelled":
                throw ColdframeError(.peer, "QEMU's migration ended as '\(status)'")
            default: try await Task.sleep(nanoseconds: Self.pollNanoseconds)
            }
        }
    }

    /// Suspends until it has ended in whatever way, or QEMU is gone.
    func untilNotMigrating() async {
        while let status = try? await guest.monitor.execute("query-migrate")["status"]?.stringValue {
            if ["completed", "failed", "cancelled", "none"].contains(status) { return }
            try? await Task.sleep(nanoseconds: Self.pollNanoseconds)
        }
    }

    /// Where `stop` and a migration leave a guest. Another state (shut down, panicked, an I/O error) is the guest's own.
    private static let ownStops: Set = ["paused", "postmigrate", "finish-migrate", "save-vm", "prelaunch"]

    /// The guest ran before, and is to run again unless it stopped by itself.
    func restoreRunState() async throws {
        if case .stopped(let status) = try await guest.runState(), Self.ownStops.contains(status) {
            try await continueSoon()
        }
    }

    private static let continueAttempts = 100

    /// QEMU says that it is done a moment before it takes `cont` ("Migration is not finalized yet"), so it is asked again.
    func continueSoon() async throws {
        for attempt in 1... {
            do { return try await guest.cont() } catch {
                guard attempt < Self.continueAttempts, !guest.monitor.isClosed else { throw error }
            }
            try await Task.sleep(nanoseconds: 500_000)
        }
    }
}

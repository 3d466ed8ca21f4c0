import ColdframeKit
import QMPWire

/// Lets a precopy stop the guest for as short as it can: QEMU may stop it for 1 ms at first, and for twice as long
/// whenever some rounds over the memory have not been enough.
///
/// A guest that writes slowly is stopped for its last few pages; one that writes faster than its memory can be sent is
/// stopped for what QEMU's own limit would cost.
@AgentActor
final class PrecopyConvergence {
    private let monitor: QEMUMonitor
    private let setup: MigrationSetup
    /// The round in which the limit was set.
    private var roundOfLimit: UInt64?

    /// The first sends all memory; what the guest writes meanwhile counts only after it.
    private static let roundsAtTheStart: UInt64 = 2
    private static let roundsPerLimit: UInt64 = 8
    private static let periodNanoseconds: UInt64 = 50_000_000

    init(monitor: QEMUMonitor, setup: MigrationSetup) {
        self.monitor = monitor
        self.setup = setup
    }

    /// Looks after the migration until `isConverging` is false.
    func run(while isConverging: () -> Bool) async throws {
        while isConverging() {
            try await Task.sleep(nanoseconds: Self.periodNanoseconds)
            guard isConverging() else { return }
            let migration = try await monitor.execute("query-migrate")
            guard isConverging(), let round = migration["ram"]?["dirty-sync-count"]?.uint64Value,
                round >= Self.roundsAtTheStart
            else { continue }
            let first = roundOfLimit ?? round
            roundOfLimit = first
            guard round >= first + Self.roundsPerLimit else { continue }
            roundOfLimit = round
            await setup.relaxDowntime()
        }
    }
}

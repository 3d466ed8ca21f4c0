import ColdframeKit
import QMPWire

/// QEMU's migration capabilities and parameters as a capture needs them, and as they were.
@AgentActor
final class MigrationSetup {
    private let monitor: QEMUMonitor
    private var previousCapabilities: [(name: String, isOn: Bool)] = []
    private var previousBandwidth: UInt64?
    private var previousDowntime: UInt64?
    private var downtimeMilliseconds = firstDowntimeMilliseconds

    /// How long a precopy may stop the guest for its last pages: little at first, more the longer it does not get there.
    private static let firstDowntimeMilliseconds: Int64 = 1
    private static let lastDowntimeMilliseconds: Int64 = 300

    /// Bytes per second: as much as QEMU lets one say. Its default is a low cap.
    private static let bandwidth: Int64 = 1 << 50

    init(monitor: QEMUMonitor) {
        self.monitor = monitor
    }

    /// `isBackground`: RAM streams while the guest runs. All other capabilities are off, since nearly each of them
    /// excludes it or changes the stream.
    func apply(isBackground: Bool) async throws {
        let list = try await monitor.execute("query-migrate-capabilities").arrayValue ?? []
        previousCapabilities = list.compactMap { entry in
            guard let name = entry["capability"]?.stringValue, let isOn = entry["state"]?.boolValue else { return nil }
            return (name, isOn)
        }
        let parameters = try await monitor.execute("query-migrate-parameters")
        previousBandwidth = parameters["max-bandwidth"]?.uint64Value
        let wanted = previousCapabilities.map { capability in
            (capability.name, capability.name == "events" || (isBackground && capability.name == "background-snapshot"))
        }
        try await set(
            wanted.filter { wanted in previousCapabilities.contains { $0.name == wanted.0 && $0.isOn != wanted.1 } })
        previousDowntime = parameters["downtime-limit"]?.uint64Value
        try await monitor.execute(
            "migrate-set-parameters",
            ["max-bandwidth": .integer(Self.bandwidth), "downtime-limit": .integer(downtimeMilliseconds)])
    }

    /// Allows a precopy twice the stop that it was allowed before.
    func relaxDowntime() async {
        guard downtimeMilliseconds < Self.lastDowntimeMilliseconds else { return }
        downtimeMilliseconds = min(downtimeMilliseconds * 2, Self.lastDowntimeMilliseconds)
        // A guest that does not answer has other worries.
        _ = try? await monitor.execute(
            "migrate-set-parameters", ["downtime-limit": .integer(downtimeMilliseconds)])
    }

    /// As it was before. A guest that does not answer any more has nothing to restore.
    func restore() async {
        guard !previousCapabilities.isEmpty else { return }
        try? await set(previousCapabilities.map { ($0.name, $0.isOn) })
        if let previousBandwidth {
            _ = try? await monitor.execute("migrate-set-parameters", ["max-bandwidth": JSONValue(previousBandwidth)])
        }
        if let previousDowntime {
            _ = try? await monitor.execute("migrate-set-parameters", ["downtime-limit": JSONValue(previousDowntime)])
        }
        previousCapabilities = []
    }

    private func set(_ capabilities: [(String, Bool)]) async throws {
        guard !capabilities.isEmpty else { return }
        // Off before on: two that exclude each other must not meet.
        let ordered = capabilities.filter { !$0.1 } + capabilities.filter { $0.1 }
        try await monitor.execute(
            "migrate-set-capabilities",
            [
                "capabilities": .array(
                    ordered.map { ["capability": .string($0.0), "state": .bool($0.1)] })
            ])
    }
}

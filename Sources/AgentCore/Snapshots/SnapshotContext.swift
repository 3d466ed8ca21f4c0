import ColdframeKit
import Logging
import QMPWire

/// What the snapshot jobs work with.
@AgentActor
struct SnapshotContext {
    let graph: Graph
    let catalogue: Catalogue
    let leases: LeaseTable
    /// nil for an agent without a name, which keeps no state.
    let journal: Journal?
    let sets: SetStore?
    /// The agent's guest, if it has one.
    let guest: @Sendable @AgentActor () -> (any Guest)?
    let post: @Sendable @AgentActor (String, JSONObject) -> Void
    let logger: Logger

    /// Records a step of an intent, if there is a journal.
    func record(_ step: Journal.Step, _ intent: Intent) async throws {
        guard let journal else { return }
        try await blocking { () throws(ColdframeError) in try journal.record(step, intent) }
    }

    /// Operations on several nodes wait for the intents of earlier ones that could not be brought to an end.
    func refusePending(_ devices: SnapshotDevices) throws {
        guard let journal else { return }
        let names = Set(devices.nodes.map(\.name))
        for (_, intent) in journal.pending where intent.images.contains(where: { names.contains($0.nodeName) }) {
            throw ColdframeError(
                .busy,
                "The \(intent.operation.rawValue) of snapshot '\(intent.tag)' was interrupted and has not been brought "
                    + "to an end on all its images; see 'coldframe status'")
        }
    }
}

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
    /// Where small images for a guest's state are made; nil for an agent without a name, which has no guest.
    let stateDirectory: String?
    /// The agent's guest, if it has one.
    let guest: @Sendable @AgentActor () -> (any Guest)?
    /// What `guest-add` was given for it.
    var guestOptions: @Sendable @AgentActor () -> JSONObject? = { nil }
    /// Puts a new process of the guest in the place of the old one.
    var replaceGuest: @Sendable @AgentActor (_ old: any Guest, _ new: any Guest) -> Void = { _, _ in }
    let post: @Sendable @AgentActor (String, JSONObject) -> Void
    let logger: Logger
    /// How long the guest may be held at the barrier.
    var holdLimitNanoseconds: UInt64 = 900_000_000

    /// Records a step of an intent, if there is a journal.
    func record(_ step: Journal.Step, _ intent: Intent) async throws {
        guard let journal else { return }
        try await blocking { () throws(ColdframeError) in try journal.record(step, intent) }
    }

    /// Takes an intent off the journal. The operation is over whatever happens here: what cannot be written is found done
    /// at the next start.
    func clear(_ intent: Intent) async {
        do {
            try await record(.cleared, intent)
        } catch {
            logger.error("\(ColdframeError(wrapping: error))")
        }
    }

    /// Runs a job's work on these devices while none of them can be deleted or given away.
    func holding<T>(_ devices: SnapshotDevices, for jobType: String, _ body: () async throws -> T) async throws -> T {
        var held: [NodeUse] = []
        do {
            for node in devices.nodes {
                let use = NodeUse(.holder("block job: \(jobType)"), role: "root", permissions: [], shared: .all)
                try node.add(use)
                held.append(use)
            }
            let result = try await body()
            for use in held { await graph.end(use) }
            return result
        } catch {
            for use in held { await graph.end(use) }
            throw error
        }
    }

    /// Operations on several nodes wait for the intents of earlier ones that could not be brought to an end.
    func refusePending(_ nodes: [GraphNode]) throws {
        guard let journal else { return }
        for (_, intent) in journal.pending
        where intent.images.contains(where: { image in nodes.contains { image.isImage(of: $0) } }) {
            throw ColdframeError(
                .busy,
                "The \(intent.operation.rawValue) of snapshot '\(intent.tag)' was interrupted and has not been brought "
                    + "to an end on all its images; see 'coldframe status'")
        }
    }
}

import ColdframeKit

/// `snapshot-check`: whether a tag could be loaded, without touching anything. Reads the whole state.
@AgentActor
struct SnapshotCheck {
    let context: SnapshotContext

    /// Every problem, one sentence each; empty if the tag is good.
    func problems(tag: String) async throws -> [String] {
        guard let set = context.catalogue.set(tagged: tag) else {
            throw ColdframeError(.notFound, "Snapshot '\(tag)' does not exist")
        }
        var problems: [String] = []
        if set.isMixed { problems.append("Its snapshots are not of one save: they show different moments.") }
        if !set.isMixed, !set.isComplete {
            problems.append("It is not whole: a node or the state of the machine is missing.")
        }
        for member in set.members where member.snapshot.vmStateByteCount > 0 {
            problems += try await stateProblems(member)
        }
        return problems
    }

    private func stateProblems(_ member: SnapshotSet.Member) async throws -> [String] {
        let node = try context.graph.find(nodeOnly: member.nodeName)
        let lease = try await context.leases.open(
            node: node, snapshotID: member.snapshot.id, holder: "snapshot-check")
        defer { lease.release() }
        guard let state = lease.vmState else { return ["Its state on '\(member.nodeName)' cannot be read."] }
        let measured = try await blocking { () throws(ColdframeError) in try StateReading.measure(state) }
        guard let expected = SetRecord(member.snapshot.annotation)?.state else { return [] }
        return measured == expected ? [] : ["Its state on '\(member.nodeName)' is damaged: the checksum is wrong."]
    }
}

import ColdframeKit

/// Internal snapshots of an image show what its backing images hold wherever they have nothing themselves. Whatever changes
/// that changes or destroys the snapshots, which QEMU does without a word.
@AgentActor
struct ShownSnapshots {
    let leases: LeaseTable

    /// Refuses an operation that changes what is below these images, unless it is forced. A snapshot that somebody reads is
    /// not changed at all.
    /// - Parameter operation: what would be done, as the beginning of a sentence.
    func refuseChange(below nodes: [GraphNode], by operation: String, force: Bool?) throws {
        for node in nodes {
            guard let bearer = node.block.driver as? any SnapshotBearing else { continue }
            let snapshots = bearer.snapshots
            guard !snapshots.isEmpty else { continue }
            let holders = leases.holders(node: node.name)
            guard holders.isEmpty else {
                throw ColdframeError(
                    .busy,
                    "\(operation) would change snapshots of node '\(node.name)' that are open in "
                        + "\(holders.joined(separator: ", ")): close them there first")
            }
            guard force != true else { continue }
            let tags = snapshots.map { "'\($0.name)'" }.joined(separator: ", ")
            throw ColdframeError(
                .busy,
                "\(operation) would change what the internal snapshots of node '\(node.name)' show: \(tags). Delete them "
                    + "first, or give 'force'")
        }
    }
}

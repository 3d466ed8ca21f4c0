import ColdframeKit
import QAPI

/// Nodes from which a disk of the guest has gone on to another, to an overlay or a copy. The snapshots that are in them stay
/// there.
@AgentActor
struct LeftNodes {
    let guest: any Guest
    let context: SnapshotContext

    private var moved: [GuestDisk] { guest.disks.filter { $0.name != $0.nodeName } }

    /// Refuses a list of devices that has a disk's name where the guest is on another node by now.
    func refuse(_ names: [String]) throws {
        for disk in moved where names.contains(disk.name) && !names.contains(disk.nodeName) {
            throw ColdframeError(
                .invalidArgument,
                "The guest's disk '\(disk.name)' is on node '\(disk.nodeName)' now, and not on node '\(disk.name)': name "
                    + "'\(disk.nodeName)' (query-guest lists the nodes)")
        }
    }

    /// Refuses to load what is in nodes that the guest has left: it would have to leave those that it is on.
    func refuseLoad(of tag: String) throws {
        guard let set = context.catalogue.set(tagged: tag) else { return }
        let present = guest.diskNodeNames
        let left = set.members.map(\.nodeName).filter { !present.contains($0) }
        let without = moved.filter { disk in !set.members.contains { $0.nodeName == disk.nodeName } }
        guard !left.isEmpty, !without.isEmpty else { return }
        let places = without.map { "'\($0.name)' on node '\($0.nodeName)'" }.joined(separator: ", ")
        throw ColdframeError(
            .invalidArgument,
            "Snapshot '\(tag)' is in node \(left.map { "'\($0)'" }.joined(separator: ", ")), and the guest has gone on since, "
                + "with its disk \(places): a snapshot stays in the image in which it was made. It can be read there, in a "
                + "tree or as a node with driver 'snapshot'. To go back to it, end the guest, take away what stands above "
                + "these nodes, load it, and start the guest on them")
    }
}

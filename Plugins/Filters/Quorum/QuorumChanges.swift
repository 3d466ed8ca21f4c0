import ColdframeKit
import QAPI

/// Children that come and go, with QEMU's rules and texts.
extension QuorumDriver: ChildChanging {
    func nextChild() throws(ColdframeError) -> (name: String, role: ChildRole, taking: [BlockPermission]) {
        if settings.verifies {
            throw ColdframeError(.unsupported, "Cannot add a child to a quorum in blkverify mode")
        }
        return ("children.\(list.withLock { $0.nextNumber })", .replica, settings.taken)
    }

    func addChild(_ node: BlockNode, name: String) throws(ColdframeError) {
        guard node.byteCount == byteCount else {
            throw ColdframeError(
                .invalidArgument,
                "Node '\(node.name)' has \(node.byteCount) bytes, quorum '\(reports.nodeName)' \(byteCount): children must be "
                    + "of one size")
        }
        list.withLock { $0.append(QuorumChild(name: name, node: node)) }
    }

    func checkRemovable(childNamed name: String) throws(ColdframeError) {
        guard children.count > settings.threshold else {
            throw ColdframeError(
                .invalidArgument,
                "The number of children cannot be lower than the vote threshold \(settings.threshold)")
        }
    }

    func removeChild(named name: String) { list.withLock { $0.remove(name) } }

    func childBecameWhole(named name: String) { children.first { $0.name == name }?.becomeWhole() }
}

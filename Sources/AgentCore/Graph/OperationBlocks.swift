import ColdframeKit

/// What a node may be wanted for, as far as something can stand against it.
enum BlockOperation {
    case backupSource, backupTarget, mirrorSource, mirrorTarget, commitSource, commitTarget, stream, resize, change
    case externalSnapshot, replace, delete
}

extension GraphNode {
    /// Throws, with QEMU's text, if a job or the node's place in a backing chain stands against an operation.
    func checkUnblocked(for operation: BlockOperation) throws {
        for use in uses.reversed() {
            if let type = use.jobType {
                throw ColdframeError(
                    .busy, "Node '\(name)' is busy: block device is in use by block job: \(type)")
            }
            guard let parent = use.parent, use.role == "backing", !parent.isFilter else { continue }
            switch operation {
            case .backupSource, .backupTarget, .commitTarget, .stream: continue
            default:
                throw ColdframeError(
                    .busy, "Node '\(name)' is busy: node is used as backing hd of '\(parent.name)'")
            }
        }
    }
}

import ColdframeKit
import LinuxSystem

/// A format above a quorum may need more space. Nothing else changes a quorum's size.
extension QuorumDriver: Growable {
    /// Children grow by a vote, as they are written. If too few do, the others are cut again: children have to be of one size when
    /// the quorum is opened.
    func grow(toByteCount newSize: UInt64) throws(ColdframeError) {
        // Two do not grow at once; requests go on.
        try holding(byteCount..<UInt64.max) { () throws(ColdframeError) in
            let oldSize = byteCount
            guard newSize > oldSize else { return }
            let children = children
            let errors = children.map { $0.grow(toByteCount: newSize) }
            reportErrors(of: children, errors, .write, oldSize..<newSize)
            guard errors.count(where: { $0 == nil }) >= settings.threshold else {
                for (child, error) in zip(children, errors) where error == nil { child.cut(toByteCount: oldSize) }
                throw QuorumBallot.winner(of: errors) ?? ColdframeError(.io, "Too few children grew")
            }
            setSize(newSize)
        }
    }
}

extension QuorumChild {
    /// How it failed, or nil.
    fileprivate func grow(toByteCount newSize: UInt64) -> ColdframeError? {
        do throws(ColdframeError) {
            guard let driver = node.driver as? any Resizable else {
                return ColdframeError(.unsupported, "Node '\(node.name)' has a fixed size", errno: Errno.noSpace)
            }
            try driver.resize(toByteCount: newSize)
            return nil
        } catch {
            return error
        }
    }

    /// What cannot be cut stays longer, and is told when the quorum is opened again.
    fileprivate func cut(toByteCount oldSize: UInt64) {
        try? (node.driver as? any Resizable)?.resize(toByteCount: oldSize)
    }
}

import ColdframeKit
import LinuxSystem
import QAPI

/// Puts `quorum` above its children. No filter in QEMU's sense: what it shows is not what one of them shows.
struct QuorumFactory: BlockDriverFactory {
    let driverName = "quorum"
    let isFormat = false

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsQuorum = try own(options.branch)
        let settings = try QuorumSettings(branch)
        let children = try await context.children(
            "children", branch.children, role: .replica, taking: settings.taken)
        for child in children where child.node.byteCount != children[0].node.byteCount {
            throw ColdframeError(
                .io,
                "Could not refresh total sector count: \(SystemError.text(errno: Errno.io)): node "
                    + "'\(children[0].node.name)' has \(children[0].node.byteCount) bytes and node '\(child.node.name)' "
                    + "\(child.node.byteCount), children must be of one size")
        }
        return QuorumDriver(
            children: children.map { QuorumChild(name: $0.name, node: $0.node) }, settings: settings,
            isReadOnly: context.isReadOnly,
            reports: QuorumReports(
                nodeName: context.nodeName, post: context.eventReport(), log: LimitedLog(context.logger)))
    }
}

/// The options of a quorum, checked in QEMU's order and with its texts.
struct QuorumSettings: Sendable {
    let threshold: Int
    let readsFirst: Bool
    let verifies: Bool
    let rewritesCorrupted: Bool

    init(_ options: BlockdevOptionsQuorum) throws(ColdframeError) {
        let childCount = options.children.count
        guard childCount > 0 else {
            throw ColdframeError(.invalidArgument, "Number of provided children must be 1 or more")
        }
        guard options.voteThreshold >= 1 else {
            throw ColdframeError(.invalidArgument, "Parameter 'vote-threshold' expects a value >= 1")
        }
        guard options.voteThreshold <= Int64(childCount) else {
            throw ColdframeError(.invalidArgument, "threshold may not exceed children count")
        }
        threshold = Int(options.voteThreshold)
        readsFirst = options.readPattern == .fifo
        // QEMU does not look at them either.
        verifies = !readsFirst && options.blkverify ?? false
        rewritesCorrupted = !readsFirst && options.rewriteCorrupted ?? false
        if verifies, childCount != 2 || threshold != 2 {
            throw ColdframeError(
                .invalidArgument,
                "blkverify=on can only be set if there are exactly two files and vote-threshold is 2")
        }
        if verifies, rewritesCorrupted {
            throw ColdframeError(.invalidArgument, "rewrite-corrupted=on cannot be used with blkverify=on")
        }
    }

    /// What is needed of a child beyond what the quorum's users need.
    var taken: [BlockPermission] { rewritesCorrupted ? [.write] : [] }
}

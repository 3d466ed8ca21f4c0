import ColdframeKit
import LinuxSystem
import QAPI

/// Puts `blkdebug` above a node.
struct BlkdebugFactory: BlockDriverFactory {
    let driverName = "blkdebug"
    let isFormat = false
    let isFilter = true
    /// The rules, and the state that they have come to, are those of the beginning.
    let reopening = ReopeningWay.sameDriver

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsBlkdebug = try own(options.branch)
        var config = BlkdebugConfig()
        if let path = branch.config {
            config = try await BlockingPool.shared.run { () throws(ColdframeError) in try BlkdebugConfig(path: path) }
        }
        let rules = BlkdebugRules(
            config.errors + (branch.injectError ?? []), config.changes + (branch.setState ?? []))
        let child = try await context.child(
            "image", branch.image, role: .filtered, taking: branch.takeChildPerms ?? [],
            unsharing: branch.unshareChildPerms ?? [])
        let limits = try BlkdebugLimits(branch)
        rules.happened(.none)
        return BlkdebugDriver(child: child, rules: rules, limits: limits)
    }
}

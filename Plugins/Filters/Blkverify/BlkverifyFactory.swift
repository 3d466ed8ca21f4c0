import ColdframeKit
import QAPI

/// Puts `blkverify` above two nodes.
struct BlkverifyFactory: BlockDriverFactory {
    let driverName = "blkverify"
    let isFormat = false
    let isFilter = true

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsBlkverify = try own(options.branch)
        // A writer beside the filter would make them differ where nothing is wrong. QEMU lets him.
        let raw = try await context.child(
            "raw", branch.raw, role: .filtered, taking: [], unsharing: [.write, .resize])
        let test = try await context.child("test", branch.test, role: .replica)
        guard raw.byteCount >= test.byteCount else {
            throw ColdframeError(
                .invalidArgument,
                "Node '\(raw.name)' of \(raw.byteCount) bytes cannot verify node '\(test.name)' of \(test.byteCount): "
                    + "'raw' must be as large as 'test'")
        }
        return BlkverifyDriver(
            name: context.nodeName, test: test, raw: raw, isReadOnly: context.isReadOnly,
            log: LimitedLog(context.logger))
    }
}

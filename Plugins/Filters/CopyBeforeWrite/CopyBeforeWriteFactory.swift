import BlockCopying
import ColdframeKit
import LinuxSystem
import QAPI

/// Puts `copy-before-write` above a node.
struct CopyBeforeWriteFactory: BlockDriverFactory {
    let driverName = "copy-before-write"
    let isFormat = false
    let isFilter = true

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsCbw = try own(options.branch)
        guard branch.cbwTimeout ?? 0 == 0 else {
            throw ColdframeError(
                .unsupported, "Copies have no time limit: leave cbw-timeout out, and limit the target's own requests")
        }
        let source = try await context.child("file", branch.file, role: .filtered)
        let target = try await context.child("target", branch.target, role: .copyTarget)
        var dirty: DirtyBits?
        if let reference = branch.bitmap {
            let bitmap = try context.bitmap(named: reference.name, node: reference.node)
            guard bitmap.diskByteCount == source.byteCount else {
                throw ColdframeError(
                    .invalidArgument,
                    "Bitmap '\(reference.name)' is of a disk of \(bitmap.diskByteCount) bytes, node '\(source.name)' "
                        + "has \(source.byteCount)")
            }
            dirty = bitmap.bits
        }
        guard target.byteCount == source.byteCount else {
            throw ColdframeError(
                .invalidArgument,
                "Target '\(target.name)' has \(target.byteCount) bytes, node '\(source.name)' has "
                    + "\(source.byteCount): they must be of the same size")
        }
        let cluster = max(target.driver.clusterByteCount ?? 0, BlockCopy.smallestClusterByteCount)
        let copy = BlockCopy(source: source, target: target, clusterByteCount: cluster, dirty: dirty)
        return CopyBeforeWriteDriver(
            copy: copy, policy: branch.onCbwError == .breakSnapshot ? .breakSnapshot : .breakGuestWrite)
    }
}

import ColdframeKit
import QAPI

/// Puts `compress` above a node.
struct CompressFactory: BlockDriverFactory {
    let driverName = "compress"
    let isFormat = false
    let isFilter = true

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsCompress = try own(options.branch)
        let file = try await context.child("file", branch.file, role: .filtered)
        guard let format = file.driver as? any CompressedWriting else {
            throw ColdframeError(
                .unsupported, "Compression is not supported for underlying format: \(file.driver.driverName)")
        }
        return CompressDriver(
            file, unitByteCount: format.compressionUnitByteCount, isReadOnly: context.isReadOnly || file.isReadOnly)
    }
}

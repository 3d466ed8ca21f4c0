import ColdframeKit
import LinuxSystem
import QAPI

/// Opens and makes files.
struct FileDriverFactory: BlockDriverFactory {
    let driverName = "file"
    let isFormat = false

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsFile = try own(options.branch)
        let request = try FileOpening(
            options, branch, isReadOnly: context.isReadOnly, autoReadOnly: context.autoReadOnly)
        return try await BlockingPool.shared.run { () throws(ColdframeError) in try request.open() }
    }

    func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        let branch: BlockdevCreateOptionsFile = try own(options.branch)
        let creation = try FileCreation(branch)
        try await BlockingPool.shared.run { () throws(ColdframeError) in try creation.run() }
        context.advance(byteCount: branch.size)
    }
}

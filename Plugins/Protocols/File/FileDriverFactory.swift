import ColdframeKit
import LinuxSystem
import QAPI

/// Opens and makes files.
struct FileDriverFactory: BlockDriverFactory {
    let driverName = "file"
    let isFormat = false

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        guard let branch = options.branch as? BlockdevOptionsFile else {
            throw ColdframeError(.invalidArgument, "Driver 'file' was given options of another driver")
        }
        let request = try FileOpening(
            options, branch, isReadOnly: context.isReadOnly, autoReadOnly: context.autoReadOnly)
        return try await BlockingPool.shared.run { () throws(ColdframeError) in try request.open() }
    }

    func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        guard let branch = options.branch as? BlockdevCreateOptionsFile else {
            throw ColdframeError(.invalidArgument, "Driver 'file' was given options of another driver")
        }
        let creation = try FileCreation(branch)
        try await BlockingPool.shared.run { () throws(ColdframeError) in try creation.run() }
        context.advance(byteCount: branch.size)
    }
}

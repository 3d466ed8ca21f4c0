import ColdframeKit
import QAPI

/// Opens an internal snapshot of a node.
struct SnapshotFactory: BlockDriverFactory {
    let driverName = "snapshot"
    let isFormat = false

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsSnapshot = try own(options.branch)
        guard branch.tag != nil || branch.id != nil else {
            throw ColdframeError(.invalidArgument, "Driver 'snapshot' needs 'tag' or 'id'")
        }
        let child = try await context.child("file", Self.reading(branch.file), role: .observed)
        return SnapshotDriver(
            try await context.snapshot(ofChild: "file", id: branch.id, tag: branch.tag), below: child)
    }

    /// An image that is opened for the sake of its snapshot is only read, unless it is told otherwise.
    private static func reading(_ reference: BlockdevRef) -> BlockdevRef {
        guard case .definition(var definition) = reference else { return reference }
        definition.readOnly = definition.readOnly ?? true
        return .definition(definition)
    }
}

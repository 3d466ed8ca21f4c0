import ColdframeKit
import QAPI

/// All mounted trees: `snapshot-export-add`, `-del`, `query-snapshot-exports`.
@AgentActor
final class SnapshotExportRegistry {
    private var exports: [Entry] = []
    private let factory: (any SnapshotExportFactory)?
    private let activity = Activity()

    private final class Entry {
        let options: SnapshotExportOptions
        var export: (any SnapshotExport)?
        init(_ options: SnapshotExportOptions) { self.options = options }
    }

    init(factory: (any SnapshotExportFactory)?) {
        self.factory = factory
    }

    func add(_ options: SnapshotExportOptions, services: any AgentServices) async throws {
        guard let factory else {
            throw ColdframeError(.unsupported, "This agent was built without a module that exports snapshots")
        }
        guard Identifier.isWellFormed(options.id) else {
            throw ColdframeError(.invalidArgument, "Invalid snapshot export id '\(options.id)'")
        }
        guard !exports.contains(where: { $0.options.id == options.id }) else {
            throw ColdframeError(.alreadyExists, "Snapshot export id '\(options.id)' is already in use")
        }
        try activity.begin()
        defer { activity.end() }
        let entry = Entry(options)
        exports.append(entry)
        do {
            try await factory.cleanStale(mountpoint: options.mountpoint)
            entry.export = try await factory.start(options, services: services)
        } catch {
            exports.removeAll { $0 === entry }
            throw error
        }
    }

    func remove(id: String) async throws {
        guard let entry = exports.first(where: { $0.options.id == id }), let export = entry.export else {
            throw ColdframeError(.notFound, "Snapshot export '\(id)' is not found")
        }
        try activity.begin()
        defer { activity.end() }
        entry.export = nil
        await export.stop()
        exports.removeAll { $0 === entry }
    }

    /// The agent's end: refuses new trees, and returns when none is mounted any more.
    func removeAll() async {
        await activity.close()
        let ending = exports
        exports = []
        for entry in ending { await entry.export?.stop() }
    }

    func information(snapshotCount: Int) -> [SnapshotExportInfo] {
        exports.compactMap { entry in
            entry.export.map {
                SnapshotExportInfo(
                    id: entry.options.id, mountpoint: $0.mountpoint, snapshots: Int64(snapshotCount))
            }
        }
    }
}

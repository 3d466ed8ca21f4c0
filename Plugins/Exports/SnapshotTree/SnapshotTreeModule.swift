import ColdframeKit
import LinuxSystem
import QAPI

/// The module: all snapshots of all nodes as one tree of files.
public enum SnapshotTreeModule {
    public static var module: Module {
        Module(
            name: "SnapshotTree", schema: GeneratedSchema.fragment, snapshotExports: [SnapshotTreeFactory()])
    }
}

/// Mounts trees for `snapshot-export-add`.
struct SnapshotTreeFactory: SnapshotExportFactory {
    func start(_ options: SnapshotExportOptions, services: any AgentServices) async throws -> any SnapshotExport {
        try await TreeExport.start(
            TreeExport.Options(
                id: options.id, mountpoint: options.mountpoint, allowOther: options.allowOther ?? false,
                isDirect: options.cache == .some(.none)),
            services: services)
    }

    func cleanStale(mountpoint: String) async throws {
        try await BlockingPool.shared.run { () throws(ColdframeError) in try Mountpoint.cleanStale(mountpoint) }
    }
}

import ColdframeKit
import LinuxSystem
import QAPI
import Testing

@testable import SnapshotTreeExport

struct ModuleTests {
    @Test func theModuleOffersOneTree() {
        let module = SnapshotTreeModule.module
        #expect(module.name == "SnapshotTree")
        #expect(module.snapshotExports.count == 1)
    }

    @Test(
        .enabled(if: mountObstacle == nil, "real mounts: \(mountObstacle ?? "")"),
        arguments: [SnapshotExportCache.auto, SnapshotExportCache.none])
    func optionsOfTheWireMountAndUnmount(cache: SnapshotExportCache) async throws {
        let factory = try #require(SnapshotTreeModule.module.snapshotExports.first)
        let directory = try Files.temporaryDirectory(prefix: "cf-tree")
        let services = FakeServices()
        let export = try await factory.start(
            SnapshotExportOptions(id: "a,b", mountpoint: directory + "/.", cache: cache, allowOther: true),
            services: services)
        let mount = MountTable.read().last { $0.mountpoint == directory }
        #expect(mount?.source == "coldframe:a,b")
        #expect(mount?.isSnapshotTree == true)
        #expect(await export.mountpoint == directory)
        await export.stop()
        #expect(!MountTable.read().contains { $0.mountpoint == directory })
        try Files.removeTree(directory)
    }
}
